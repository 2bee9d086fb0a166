//! The folder of migrations in, a build anew whenever one is added out: the macro that embeds them is not told.

fn main() {
    println!("cargo:rerun-if-changed=sql");
}
