//! Compiles `seracdb.proto` in Rust alone, so that no protoc has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=seracdb.proto");
    let files = protox::compile(["seracdb.proto"], ["."])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
