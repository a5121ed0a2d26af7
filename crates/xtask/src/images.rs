//! `cargo xtask images`: real images from Debian's packages, for machines that reach no registry.
//!
//! An image is made once and kept outside of the tree. A new one is a line in [`RECIPES`] and a function that writes its
//! layers.

mod bulk;
mod busybox;
mod layer;
mod nginx;
mod oci;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::output::{mebibytes, say, seconds};
use crate::packages;

/// How an image is made.
struct Recipe {
    name: &'static str,
    /// Goes up when what is made changes, so that what an older version made is not used.
    revision: u32,
    packages: &'static [&'static str],
    /// Large, and made only when it is named.
    only_by_name: bool,
    /// Says how the image wants to be run: `config` of the OCI image specification's configuration.
    execution: fn() -> Value,
    /// Writes the layers into a directory and returns their files, lowest first.
    layers: fn(&Path) -> Result<Vec<PathBuf>>,
}

static RECIPES: [Recipe; 3] = [
    Recipe {
        name: "busybox",
        revision: 2,
        packages: &["busybox-static"],
        only_by_name: false,
        execution: busybox::execution,
        layers: busybox::layers,
    },
    Recipe {
        name: "nginx",
        revision: 2,
        packages: &["mmdebstrap"],
        only_by_name: false,
        execution: nginx::execution,
        layers: nginx::layers,
    },
    Recipe {
        name: "bulk",
        revision: 1,
        packages: &["busybox-static"],
        only_by_name: true,
        execution: bulk::execution,
        layers: bulk::layers,
    },
];

/// An image's archive.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// `None` if it was there already.
    pub(crate) took: Option<Duration>,
}

pub(crate) fn run(names: &[String], fresh: bool) -> Result<()> {
    let all = || {
        let always = RECIPES.iter().filter(|recipe| !recipe.only_by_name);
        always.map(|recipe| recipe.name.to_owned()).collect()
    };
    let names: Vec<String> = if names.is_empty() { all() } else { names.to_vec() };
    for name in &names {
        let Made { path, bytes, took } = make(name, fresh)?;
        let took = took.map_or_else(|| "was there".to_owned(), seconds);
        say(format_args!("{}  {}  {took}", path.display(), mebibytes(bytes)));
    }
    Ok(())
}

/// The image's archive, an OCI layout; made if it is not there, or if a `fresh` one is wanted.
pub(crate) fn make(name: &str, fresh: bool) -> Result<Made> {
    let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
        let names = RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
        bail!("there is no recipe for an image `{name}`, only for {names}");
    };
    let cache = cache()?;
    let path = cache.join(format!("{name}.r{}.tar", recipe.revision));
    if let Ok(metadata) = fs::metadata(&path)
        && !fresh
    {
        return Ok(Made { path, bytes: metadata.len(), took: None });
    }
    let began = Instant::now();
    packages::ensure(recipe.packages)?;
    // In the same file system, so that the finished archive gets its name in one step.
    let work = tempfile::Builder::new().prefix(".making-").tempdir_in(&cache);
    let work = work.with_context(|| format!("cannot make a directory in {}", cache.display()))?;
    let layers = (recipe.layers)(work.path()).with_context(|| format!("cannot make image {name}"))?;
    let archive = work.path().join("image.tar");
    oci::write(&archive, name, &(recipe.execution)(), &layers)
        .and_then(|()| fs::rename(&archive, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let bytes = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok(Made { path, bytes, took: Some(began.elapsed()) })
}

/// Unpacks the image's layers, one over the other, into a directory. None of ours removes anything of one below it.
pub(crate) fn unpack(name: &str, into: &Path) -> Result<()> {
    let archive = make(name, false)?.path;
    oci::unpack(&archive, into).with_context(|| format!("cannot unpack {}", archive.display()))
}

fn cache() -> Result<PathBuf> {
    let dir = cache_root()?.join("images");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// `$XDG_CACHE_HOME/gantry`, by the XDG Base Directory Specification.
pub(crate) fn cache_root() -> Result<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base =
        given.or_else(home).context("neither XDG_CACHE_HOME nor HOME says where images can be kept")?;
    Ok(base.join("gantry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_image_is_refused_with_those_that_are_known() {
        let error = make("postgres", false).unwrap_err().to_string();
        assert_eq!(error, "there is no recipe for an image `postgres`, only for busybox, nginx, bulk");
    }

    #[test]
    fn a_recipe_installs_nothing_that_the_project_does_not_list() {
        for recipe in &RECIPES {
            assert!(recipe.packages.iter().all(|package| packages::ALL.contains(package)), "{}", recipe.name);
        }
    }
}
