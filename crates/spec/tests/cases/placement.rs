//! Where tasks may be, and had better be.

use expect_test::expect;

use crate::{check, check_web};

#[test]
fn constraints_are_swarms_and_sets_are_understood() {
    check_web(
        r#"deploy:
  placement:
    constraints:
      - node.role == manager
      - node.labels.disk=ssd
      - node.labels.zone in (a, b)
      - node.labels.zone not in (c)
      - node.ip != 10.0.0.0/8
      - engine.labels.kernel == 6.1
      - node.platform.arch == x86_64"#,
        expect![[r#"
            web
              image nginx:latest
              where node.role == manager
              where node.labels.disk == ssd
              where node.labels.zone in (a, b)
              where node.labels.zone != c
              where node.ip != 10.0.0.0/8
              where engine.labels.kernel == 6.1
              where node.platform.arch == amd64
        "#]],
    );
}

#[test]
fn a_constraint_that_cannot_be_says_what_was_meant() {
    check_web(
        r#"deploy:
  placement:
    constraints: [disk=ssd, node.label.disk == ssd, node.hostnam == n1, node.name == n1, node.role == boss, node.ip == here]"#,
        expect![[r#"
            error a.yaml:6:23: a node has no `disk`; did you mean `node.labels.disk`?
            error a.yaml:6:33: a node has no `node.label.disk`; did you mean `node.labels.disk`?
            error a.yaml:6:57: a node has no `node.hostnam`; did you mean `node.hostname`?
            error a.yaml:6:77: a node has no `node.name`; did you mean `node.hostname`?
            error a.yaml:6:94: `node.role` is never `boss`; write manager or worker
            error a.yaml:6:113: `node.ip` is never `here`; write an address, or a network as `10.0.0.0/8`
        "#]],
    );
    check_web(
        r#"deploy:
  placement:
    constraints: [node.labels.disk, node.labels.size > 3, node.cpu.count == 2, 5, "!node.labels.a"]"#,
        expect![[r#"
            error a.yaml:6:23: `node.labels.disk` is not a constraint; write `node.labels.disk == ssd`, `node.hostname != n1` or `node.labels.zone in (a, b)`
            error a.yaml:6:41: `node.labels.size > 3` is not a constraint; write `node.labels.disk == ssd`, `node.hostname != n1` or `node.labels.zone in (a, b)`
            error a.yaml:6:63: a node has no `node.cpu.count`; there are node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME and engine.labels.NAME
            error a.yaml:6:84: each item of `constraints` must be a string, and this is the number `5`; put it in quotes
            error a.yaml:6:87: `!node.labels.a` is not a constraint; write `node.labels.disk == ssd`, `node.hostname != n1` or `node.labels.zone in (a, b)`
        "#]],
    );
}

#[test]
fn tasks_are_spread_and_bounded() {
    check_web(
        r#"deploy:
  replicas: 6
  placement:
    max_replicas_per_node: 2
    preferences: [{spread: node.labels.zone}, {spread: node.hostname}]
platform: linux/x86_64"#,
        expect![[r#"
            web
              image nginx:latest
              replicas 6
              spread over node.labels.zone
              spread over node.hostname
              at most 2 a node
              for linux/amd64
        "#]],
    );
    check_web(
        r#"deploy:
  mode: global
  placement:
    max_replicas_per_node: 2
    preferences: [{spread: zone}, {spred: node.hostname}, node.id]
platform: linux"#,
        expect![[r#"
            error a.yaml:8:32: a node has no `zone`; did you mean `node.labels.zone`?
            error a.yaml:8:40: unknown key `spred`; did you mean `spread`?
            error a.yaml:8:63: each item of `preferences` must be a mapping, and this is the string `node.id`
            error a.yaml:9:15: `linux` is not a platform; write for example linux/amd64 or linux/arm64
            warning a.yaml:7:9: what is `global` has one task on every node, so this means nothing; take it out
        "#]],
    );
    check_web(
        "deploy: {placement: {max_replicas_per_node: 0}}",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
}

#[test]
fn services_are_near_others_or_apart_from_them() {
    check(
        r#"services:
  db: {image: postgres}
  cache:
    image: redis
    x-gantry: {placement: {affinity: [db], anti_affinity: [{service: other/db}, {service: web, required: false}]}}
  web:
    image: nginx
    x-gantry: {placement: {strategy: binpack, priority: -5}}
"#,
        expect![[r#"
            cache
              image redis:latest
              Near db
              Apart web, rather
              Apart other/db
            db
              image postgres:latest
            web
              image nginx:latest
              strategy binpack
              priority -5
        "#]],
    );
    check(
        r#"services:
  db: {image: postgres, x-gantry: {placement: {affinity: [web]}}}
  cache: {image: redis, x-gantry: {placement: {affinity: [db, dbb, cache], anti_affinity: [cache, {required: yes}]}}}
  web: {image: nginx, x-gantry: {placement: {affinity: [cache], strategy: pack, priority: 2000, spread: x}}}
"#,
        expect![[r#"
            error a.yaml:3:63: there is no service `dbb`; name one of this file, or one of another stack as `stack/service`
            error a.yaml:3:68: `cache` names itself here; take it out
            error a.yaml:3:92: `cache` names itself here; write `deploy: {placement: {max_replicas_per_node: 1}}`
            error a.yaml:3:99: this item of `anti_affinity` names no service; write `service: NAME`
            error a.yaml:4:57: services need each other to be there first: cache -> db -> web -> cache; take one of them out
            error a.yaml:4:75: `strategy` cannot be `pack`; write spread or binpack
            error a.yaml:4:91: `priority` must be a whole number from -1000 to 1000, and this is the number `2000`
            error a.yaml:4:97: unknown key `spread`; there are affinity, anti_affinity, strategy and priority; constraints stand under `deploy.placement`
            warning a.yaml:3:110: `required` is true here, but this word is no boolean since YAML 1.2; write `true`
        "#]],
    );
}
