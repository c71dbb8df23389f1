//! Lists the recipes in `src/kinds/http/recipes`, so that adding one is adding a file. What they have for the tests is left out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new("src/kinds/http/recipes");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|it| it == "toml"));
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.file_stem().and_then(|it| it.to_str()).ok_or_else(|| io::Error::other("a name in UTF-8"))?;
        let text = fs::read_to_string(&file)?;
        // Examples are the end of each.
        let recipe = text.split("\n[[exchange]]").next().unwrap_or(&text);
        let _ = writeln!(list, "    ({name:?}, &[{name:?}], {recipe:?}),");
    }
    list.push(']');
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("recipes.rs"), list)
}
