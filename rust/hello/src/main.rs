//! The program of the embedded `hello` image: says what it sees from inside a container.

use std::fs;

fn main() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = read("/proc/sys/kernel/hostname");
    let kernel = read("/proc/sys/kernel/osrelease");
    println!("Hello from a knarr container!");
    println!();
    println!(
        "  process    {} of its own PID namespace",
        std::process::id()
    );
    println!("  host name  {}", host.trim());
    println!("  kernel     Linux {}", kernel.trim());
    println!();
    println!("This image came with knarr itself: no registry, no network. Next:");
    println!("  knarr pull IMAGE              fetch an image from a registry");
    println!("  knarr run -it IMAGE sh        look around in it");
    println!("  knarr run --host-overlay sh   look around in a throw-away copy of this host");
}
