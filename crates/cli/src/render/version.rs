//! `gantry version`.

use serde::Serialize;
use wire::proto::api::VersionReply;

use crate::render::{known, plain};

#[derive(Debug, Serialize)]
pub(crate) struct Versions<'a> {
    client: &'a str,
    /// Of the manager that answered; with what follows null where none did.
    server: Option<&'a str>,
    /// The cluster's id.
    cluster: Option<&'a str>,
    leader: Option<&'a str>,
}

/// `client` is this program's version.
pub(crate) fn versions<'a>(client: &'a str, reply: Option<&'a VersionReply>) -> Versions<'a> {
    Versions {
        client,
        server: reply.and_then(|reply| known(&reply.version)),
        cluster: reply.and_then(|reply| known(&reply.cluster)),
        leader: reply.and_then(|reply| known(&reply.leader)),
    }
}

/// One line each; what is unknown is left out.
pub(crate) fn text(versions: &Versions<'_>) -> String {
    let Versions { client, server, cluster, leader } = versions;
    let lines = [("client", Some(*client)), ("server", *server), ("cluster", *cluster), ("leader", *leader)];
    let line = |(name, value): (&str, Option<&str>)| Some(format!("{name:<7}  {}\n", plain(value?)));
    lines.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    #[test]
    fn the_client_has_a_version_whatever_the_cluster_says() {
        let reply =
            VersionReply { version: "0.1.0".to_owned(), cluster: "00ff".to_owned(), leader: "n1".to_owned() };
        expect![[r#"
            client   0.2.0
            server   0.1.0
            cluster  00ff
            leader   n1
        "#]]
        .assert_eq(&text(&versions("0.2.0", Some(&reply))));
        assert_eq!(text(&versions("0.2.0", None)), "client   0.2.0\n");
        expect![[r#"
            {
              "client": "0.2.0",
              "server": null,
              "cluster": null,
              "leader": null
            }
        "#]]
        .assert_eq(&document::json(&versions("0.2.0", None)));
    }
}
