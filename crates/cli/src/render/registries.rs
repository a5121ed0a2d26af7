//! `gantry registry ls`.

use serde::Serialize;
use wire::proto::api;

use crate::render::known;
use crate::render::table::table;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    registry: &'a str,
    /// Who is logged in; null if nobody is.
    username: Option<&'a str>,
    insecure: bool,
    mirrors: &'a [String],
    /// How many certificates of authorities there are.
    ca: u32,
}

pub(crate) fn rows(registries: &[api::Registry]) -> Vec<Row<'_>> {
    registries.iter().map(row).collect()
}

fn row(registry: &api::Registry) -> Row<'_> {
    let api::Registry { registry, username, insecure, mirrors, ca } = registry;
    Row { registry, username: known(username), insecure: *insecure, mirrors, ca: *ca }
}

pub(crate) fn registries_table(registries: &[api::Registry]) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let cells = |registry: &api::Registry| {
        vec![
            registry.registry.clone(),
            registry.username.clone(),
            yes(registry.insecure),
            yes(registry.ca > 0),
            registry.mirrors.join(", "),
        ]
    };
    let rows: Vec<_> = registries.iter().map(cells).collect();
    table(&["REGISTRY", "USER", "INSECURE", "CA", "MIRRORS"], &rows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    #[test]
    fn a_registry_is_shown_without_its_secret() {
        let hub = api::Registry {
            registry: "docker.io".to_owned(),
            username: "me".to_owned(),
            insecure: false,
            mirrors: vec!["mirror.lan:5000".to_owned()],
            ca: 0,
        };
        let lan = api::Registry {
            registry: "reg.lan".to_owned(),
            username: String::new(),
            insecure: true,
            mirrors: Vec::new(),
            ca: 1,
        };
        expect![[r#"
            REGISTRY   USER  INSECURE  CA   MIRRORS
            docker.io  me    no        no   mirror.lan:5000
            reg.lan    -     yes       yes
        "#]]
        .assert_eq(&registries_table(&[hub, lan.clone()]));
        expect![[r#"
            [
              {
                "registry": "reg.lan",
                "username": null,
                "insecure": true,
                "mirrors": [],
                "ca": 1
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[lan])));
    }
}
