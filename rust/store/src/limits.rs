//! Every limit has a number.

/// What a layer may cost. The defaults are far above any real image and far below what hurts a host.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Entries in one layer.
    pub entries: u64,
    /// Bytes of one path inside a layer (the kernel's own limit).
    pub path: usize,
    /// Bytes of one PAX header or GNU long name.
    pub extension: u64,
    /// Bytes of paths remembered while a layer is applied: directories, and links to lower layers.
    pub remembered: usize,
    /// Pieces of one sparse file.
    pub sparse_pieces: usize,
    /// Unpacked bytes of one layer, whatever its size.
    pub unpacked: u64,
    /// Unpacked bytes for each compressed one (deflate cannot exceed 1,032), beyond `unpacked_base`.
    pub ratio: u64,
    /// Unpacked bytes that any layer may have.
    pub unpacked_base: u64,
    /// Layers of one image.
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            path: 4096,
            extension: 1 << 20,
            remembered: 64 << 20,
            sparse_pieces: 1 << 20,
            unpacked: 1 << 40,
            ratio: 1100,
            unpacked_base: 64 << 20,
            layers: 500,
        }
    }
}

impl Limits {
    /// The unpacked bytes allowed to a layer of so many compressed ones.
    #[must_use]
    pub fn unpacked_for(&self, compressed: u64) -> u64 {
        compressed
            .saturating_mul(self.ratio)
            .saturating_add(self.unpacked_base)
            .min(self.unpacked)
    }
}
