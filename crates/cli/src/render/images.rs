//! `gantry image ls` and what `import` ends with.

use model::{Bytes, Digest};
use serde::Serialize;
use wire::proto::api;

use crate::render::table::table;
use crate::render::{known, plain};
use crate::times;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    name: Option<&'a str>,
    digest: &'a str,
    /// In bytes; null as long as no node has it.
    size: Option<u64>,
    imported: Option<String>,
    nodes: &'a [String],
    /// The repository that it can be pulled from.
    origin: Option<&'a str>,
}

pub(crate) fn rows(images: &[api::Image]) -> Vec<Row<'_>> {
    images.iter().map(row).collect()
}

fn row(image: &api::Image) -> Row<'_> {
    let api::Image { name, digest, size, imported, nodes, origin } = image;
    let (name, size) = (known(name), (*size > 0).then_some(*size));
    Row { name, digest, size, imported: times::rfc3339(*imported), nodes, origin: known(origin) }
}

/// `now` is in milliseconds since the epoch.
pub(crate) fn images_table(images: &[api::Image], wide: bool, now: u64) -> String {
    let size =
        |image: &api::Image| if image.size > 0 { Bytes(image.size).to_string() } else { String::new() };
    let cells = |image: &api::Image| {
        let mut cells = vec![
            image.name.clone(),
            if wide { image.digest.clone() } else { short(&image.digest) },
            size(image),
            times::ago(now, image.imported),
        ];
        if wide {
            cells.push(image.origin.clone());
        }
        cells.push(image.nodes.join(", "));
        cells
    };
    let rows: Vec<_> = images.iter().map(cells).collect();
    match wide {
        false => table(&["NAME", "DIGEST", "SIZE", "IMPORTED", "NODES"], &rows),
        true => table(&["NAME", "DIGEST", "SIZE", "IMPORTED", "ORIGIN", "NODES"], &rows),
    }
}

/// `imported nginx:latest (sha256:0123456789ab, 57 MiB) on n1, n2`, with a line end.
pub(crate) fn imported(image: &api::Image) -> String {
    arrived("imported", image)
}

/// The same of an image that a registry gave.
pub(crate) fn pulled(image: &api::Image) -> String {
    arrived("pulled", image)
}

/// The same of one that was made of a container.
pub(crate) fn committed(image: &api::Image) -> String {
    arrived("committed", image)
}

fn arrived(how: &str, image: &api::Image) -> String {
    let api::Image { name, digest, size, imported: _, nodes, origin: _ } = image;
    let (digest, size, nodes) = (short(digest), Bytes(*size), nodes.join(", "));
    format!("{}\n", plain(&format!("{how} {name} (sha256:{digest}, {size}) on {nodes}")))
}

/// The first digits, as Docker shows an id; what is no digest as it is.
pub(crate) fn short(digest: &str) -> String {
    digest.parse::<Digest>().map_or_else(|_| digest.to_owned(), |digest| digest.short())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    fn nginx() -> api::Image {
        api::Image {
            name: "nginx:latest".to_owned(),
            digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            size: 57 << 20,
            imported: 1_700_000_000_000,
            nodes: vec!["n1".to_owned(), "n2".to_owned()],
            origin: String::new(),
        }
    }

    #[test]
    fn an_image_is_shown_with_who_holds_it() {
        let nameless = api::Image { name: String::new(), nodes: Vec::new(), ..nginx() };
        expect![[r#"
            NAME          DIGEST        SIZE    IMPORTED  NODES
            nginx:latest  0123456789ab  57 MiB  2m ago    n1, n2
            -             0123456789ab  57 MiB  2m ago
        "#]]
        .assert_eq(&images_table(&[nginx(), nameless.clone()], false, 1_700_000_120_000));
        expect![[r#"
            [
              {
                "name": null,
                "digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "size": 59768832,
                "imported": "2023-11-14T22:13:20.000Z",
                "nodes": [],
                "origin": null
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[nameless])));
        let (name, nodes, origin) = (String::new(), Vec::new(), "docker.io/library/nginx".to_owned());
        let pulled = api::Image { name, size: 0, nodes, origin, ..nginx() };
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(
            images_table(&[pulled], true, 1_700_000_120_000).lines().last(),
            Some(format!("-     {digest}  -     2m ago    docker.io/library/nginx").as_str())
        );
        assert_eq!(imported(&nginx()), "imported nginx:latest (sha256:0123456789ab, 57 MiB) on n1, n2\n");
    }
}
