//! `gantry services`.

use serde::Serialize;
use wire::proto::api;

use crate::render::table::table;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    service: &'a str,
    /// `replicated`
    mode: &'a str,
    desired: u32,
    running: u32,
    ready: u32,
    version: u64,
    /// `running | paused | failed | completed`; null for what is run once.
    rollout: Option<&'a str>,
    image: &'a str,
    ports: &'a [String],
}

pub(crate) fn rows(services: &[api::Service]) -> Vec<Row<'_>> {
    services.iter().map(row).collect()
}

fn row(service: &api::Service) -> Row<'_> {
    // Whether it is being removed shows in the numbers.
    let api::Service { service, mode, desired, running, ready, version, image, ports, removing: _, rollout } =
        service;
    Row {
        service,
        mode,
        desired: *desired,
        running: *running,
        ready: *ready,
        version: *version,
        rollout: (!rollout.is_empty()).then_some(rollout),
        image,
        ports,
    }
}

pub(crate) fn services_table(services: &[api::Service], wide: bool) -> String {
    if wide {
        let header =
            ["SERVICE", "MODE", "DESIRED", "RUNNING", "READY", "VERSION", "ROLLOUT", "IMAGE", "PORTS"];
        return table(&header, &services.iter().map(wide_cells).collect::<Vec<_>>());
    }
    let header = ["SERVICE", "READY", "VERSION", "ROLLOUT", "IMAGE", "PORTS"];
    table(&header, &services.iter().map(cells).collect::<Vec<_>>())
}

fn cells(service: &api::Service) -> Vec<String> {
    let removing = if service.removing { " (removing)" } else { "" };
    vec![
        service.service.clone(),
        format!("{}/{}{removing}", service.ready, service.desired),
        service.version.to_string(),
        service.rollout.clone(),
        service.image.clone(),
        service.ports.join(", "),
    ]
}

fn wide_cells(service: &api::Service) -> Vec<String> {
    vec![
        service.service.clone(),
        service.mode.clone(),
        service.desired.to_string(),
        service.running.to_string(),
        service.ready.to_string(),
        service.version.to_string(),
        service.rollout.clone(),
        service.image.clone(),
        service.ports.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    fn web() -> api::Service {
        api::Service {
            service: "hello/web".to_owned(),
            mode: "replicated".to_owned(),
            desired: 9,
            running: 8,
            ready: 7,
            version: 2,
            image: "nginx:latest".to_owned(),
            ports: vec!["80/tcp".to_owned(), "8443->443/tcp".to_owned()],
            removing: false,
            rollout: "completed".to_owned(),
        }
    }

    #[test]
    fn the_table_has_what_is_ready_of_what_is_wanted() {
        let gone = api::Service { service: "hello/old".to_owned(), desired: 0, removing: true, ..web() };
        expect![[r#"
            SERVICE    READY           VERSION  ROLLOUT    IMAGE         PORTS
            hello/web  7/9             2        completed  nginx:latest  80/tcp, 8443->443/tcp
            hello/old  7/0 (removing)  2        completed  nginx:latest  80/tcp, 8443->443/tcp
        "#]]
        .assert_eq(&services_table(&[web(), gone], false));
    }

    #[test]
    fn the_wide_table_has_every_number() {
        expect![[r#"
            SERVICE    MODE        DESIRED  RUNNING  READY  VERSION  ROLLOUT    IMAGE         PORTS
            hello/web  replicated  9        8        7      2        completed  nginx:latest  80/tcp, 8443->443/tcp
        "#]]
        .assert_eq(&services_table(&[web()], true));
    }

    #[test]
    fn json_has_the_documented_fields() {
        expect![[r#"
            [
              {
                "service": "hello/web",
                "mode": "replicated",
                "desired": 9,
                "running": 8,
                "ready": 7,
                "version": 2,
                "rollout": "completed",
                "image": "nginx:latest",
                "ports": [
                  "80/tcp",
                  "8443->443/tcp"
                ]
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[web()])));
    }
}
