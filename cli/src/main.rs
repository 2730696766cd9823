//! knest.
fn main() {}
