//! The hello program.
fn main() {}
