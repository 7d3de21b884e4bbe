//! Lists the repository's own sources and documents, which are the embedded corpus, as
//! `include_str!` lines in `$OUT_DIR/embedded_files.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Places under the repository's root that the corpus is taken from.
const PLACES: [&str; 8] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "gc", "runtime", "demos", "benches", "docs"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("..");
    let root = root.canonicalize()?;
    let mut files = vec![];
    for place in PLACES {
        collect(&root.join(place), &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file);
        writeln!(
            list,
            "    ({:?}, include_str!({:?})),",
            name.display().to_string(),
            file.display().to_string()
        )
        .expect("writing to a string");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("embedded_files.rs"), list)
}

/// Adds `place`, or the source and document files under it.
fn collect(place: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if place.is_dir() {
        println!("cargo::rerun-if-changed={}", place.display());
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files)?;
            }
        }
    } else if place.extension().is_some_and(|kind| kind == "rs" || kind == "md")
        && fs::read_to_string(place).is_ok_and(|text| !text.trim().is_empty())
    {
        files.push(place.to_owned());
    }
    Ok(())
}
