use expect_test::expect;

use super::{check, check_web};

#[test]
fn every_key_in_scope_reaches_the_model() {
    check(
        r#"
name: shop
x-anything: {goes: here}
services:
  web:
    image: registry.example:5000/team/web:v2
    entrypoint: /docker-entrypoint.sh --fast
    command: ["nginx", "-g", "daemon off;"]
    environment:
      A: text
      B: 5
      C: true
    labels:
      - com.example.role=front
    working_dir: /srv
    user: "1000:1000"
    ports:
      - 80
      - {target: 443, published: 8443, mode: host}
    restart: unless-stopped
    deploy:
      mode: replicated
      replicas: 3
      labels: {tier: "1"}
      resources:
        limits: {cpus: "0.5", memory: 64m, pids: 100}
        reservations: {cpus: 0.25, memory: 32m}
      placement:
        constraints: [node.labels.disk == ssd, node.hostname != n1]
    x-more: 1
"#,
        expect![[r#"
            project shop
            web
              image registry.example:5000/team/web:v2
              replicas 3
              service label tier = "1"
              entrypoint ["/docker-entrypoint.sh", "--fast"]
              command ["nginx", "-g", "daemon off;"]
              env A = "text"
              env B = "5"
              env C = "true"
              label com.example.role = "front"
              working_dir "/srv"
              user "1000:1000"
              port 80/tcp at any
              port 443/tcp at 8443
              reserved 0.25 cpus, 32 MiB
              limited to 0.5 cpus, 64 MiB, 100 pids
              where node.labels.disk == ssd
              where node.hostname != n1
        "#]],
    );
}

#[test]
fn the_top_level_takes_compose_keys_only() {
    check(
        r#"version: "3.8"
name: My_Shop
services:
  web: {image: nginx}
volumes: {}
servces: {}
x-gantry: {}
x-mine: {}
"#,
        expect![[r#"
            error a.yaml:2:7: `My_Shop` is not a DNS label: use a-z, 0-9 and `-`, with a letter or digit at either end; call it `my-shop`
            error a.yaml:5:1: gantry does not do `volumes` yet; take it out to deploy without it
            error a.yaml:6:1: unknown key `servces`; did you mean `services`?
            warning a.yaml:1:1: `version` is obsolete and means nothing; take it out
        "#]],
    );
}

#[test]
fn what_compose_knows_is_not_yet_and_what_it_does_not_is_unknown() {
    check_web(
        "depends_on: [db]\nbuild: .\nmem_swappiness: 60\nenviroment: {}\nfrobnicate: 1\ncontainer_name: w\nexpose: [80]\nx-a: 1\nx-gantry: {}",
        expect![[r#"
            error a.yaml:4:18: there is no service `db`; name one of this file, or write `required: false`
            error a.yaml:5:5: gantry does not do `build` yet; build the image beforehand and name it with `image`
            error a.yaml:6:5: gantry does not do `mem_swappiness` yet; take it out to deploy without it
            error a.yaml:7:5: unknown key `enviroment`; did you mean `environment`?
            error a.yaml:8:5: unknown key `frobnicate`; it is not in the Compose Specification; keys of your own begin with `x-`
            warning a.yaml:9:5: `container_name` means nothing in a cluster: a service may have many containers; take it out; containers are named after their service
            warning a.yaml:10:5: `expose` means nothing in a cluster: containers reach each other's ports without it; take it out
        "#]],
    );
}

#[test]
fn a_project_needs_services_and_a_service_an_image() {
    check(
        "",
        expect![[r#"
        error a.yaml:1:1: there are no services here; write `services:` and below it `web: {image: nginx}`
    "#]],
    );
    check(
        "# nothing\n",
        expect![[r#"
        error a.yaml:1:1: there are no services here; write `services:` and below it `web: {image: nginx}`
    "#]],
    );
    check(
        "name: a\nservices: {}\n",
        expect![[r#"
        error a.yaml:2:11: there are no services here; write `services:` and below it `web: {image: nginx}`
    "#]],
    );
    check(
        "- a\n",
        expect![[r#"
        error a.yaml:1:1: a Compose file must be a mapping, and this is a list
    "#]],
    );
    check(
        "services: [a]\n",
        expect![[r#"
        error a.yaml:1:11: `services` must be a mapping, and this is a list
    "#]],
    );
    check(
        "services:\n  web: {}\n  db:\n  api: nginx\n",
        expect![[r#"
        error a.yaml:2:3: the service `web` has no image; write `image: NAME`
        error a.yaml:3:3: the service `db` has no image; write `image: NAME`
        error a.yaml:4:8: the service `api` must be a mapping, and this is the string `nginx`
    "#]],
    );
}

#[test]
fn names_and_images_are_checked() {
    check(
        "services:\n  my_app: {image: nginx}\n  -bad: {image: nginx}\n  a: {image: Nginx}\n  b: {image: ''}\n  c: {image: a@sha256:00}\n  d: {image: 7}\n",
        expect![[r#"
            error a.yaml:2:3: `my_app` is not a DNS label: use a-z, 0-9 and `-`, with a letter or digit at either end; call it `my-app`
            error a.yaml:3:3: `-bad` is not a DNS label: use a-z, 0-9 and `-`, with a letter or digit at either end
            error a.yaml:4:14: `Nginx` is not an image name: it looks like nginx, nginx:1.22 or registry.example:5000/team/app:v1
            error a.yaml:5:14: an image name cannot be empty
            error a.yaml:6:14: `a@sha256:00` names no image by digest: it looks like nginx@sha256: and 64 hex digits in lower case
            error a.yaml:7:14: `image` must be a string, and this is the number `7`; put it in quotes
        "#]],
    );
}

#[test]
fn a_command_is_a_line_or_a_list() {
    check_web(
        r#"command: sh -c "echo 'a b'""#,
        expect![[r#"
        web
          image nginx:latest
          command ["sh", "-c", "echo 'a b'"]
    "#]],
    );
    check_web(
        "command: >\n  sleep\n  60\nentrypoint: []",
        expect![[r#"
        web
          image nginx:latest
          entrypoint []
          command ["sleep", "60"]
    "#]],
    );
    check_web(
        "command: ''\nentrypoint: ~",
        expect![[r#"
        web
          image nginx:latest
          command []
    "#]],
    );
    check_web(
        "command: a && b\nentrypoint: 'a \"b'",
        expect![[r#"
        error a.yaml:4:14: `command`: `&` means something to a shell, and no shell reads this; quote it, or write `[sh, -c, '…']`
        error a.yaml:5:17: `entrypoint`: a quote " is never closed; write the command as a list of words
    "#]],
    );
    check_web(
        "command: [sleep, 60, [a]]\nentrypoint: {a: b}",
        expect![[r#"
        error a.yaml:4:22: each item of `command` must be a string, and this is the number `60`; put it in quotes
        error a.yaml:4:26: each item of `command` must be a string, and this is a list
        error a.yaml:5:17: `entrypoint` must be a string, and this is a mapping
    "#]],
    );
}

#[test]
fn the_environment_is_a_mapping_or_a_list() {
    check_web(
        "environment:\n  MODE: 0444\n  RATIO: 1.10\n  YES: yes\n  OFF: false\n  TAG:\n  NOTHING: ''",
        expect![[r#"
            web
              image nginx:latest
              env MODE = "292"
              env NOTHING = ""
              env OFF = "false"
              env RATIO = "1.1"
              env TAG = "1.22"
              env YES = "yes"
        "#]],
    );
    check_web(
        "environment:\n- A=1=2\n- B=\n- TAG\n- MISSING\n- A=3",
        expect![[r#"
        web
          image nginx:latest
          env A = "3"
          env B = ""
          env TAG = "1.22"
        warning a.yaml:8:7: `MISSING` has no value here and is not set, so it is left out; set it, or give it a value
        warning a.yaml:9:7: the same name stands above, and this value replaces that; keep one of them
    "#]],
    );
}

#[test]
fn what_no_program_can_have_in_its_environment_is_refused() {
    check_web(
        "environment:\n  '': a\n  A=B: c\n  N: \"a\\0b\"\n  L: [a]\n  T: '{{.Node.Hostname}}'\n  TEMPLATE:",
        expect![[r#"
            error a.yaml:5:7: `environment` needs a name before its value
            error a.yaml:6:7: the name `A=B` contains `=`; in a mapping the value stands behind a colon
            error a.yaml:7:10: `N` contains a NUL character, which no program can be given
            error a.yaml:8:10: `L` must be a string, number or boolean, and this is a list
            error a.yaml:9:10: templates are not done yet; Docker Swarm would fill in `{{…}}`; write what it stands for
            error a.yaml:10:7: templates are not done yet; Docker Swarm would fill in `{{…}}`; write what it stands for
        "#]],
    );
    check_web(
        "environment: [=a, 5]\nlabels: text",
        expect![[r#"
        error a.yaml:4:19: each item of `environment` needs a name before its value
        error a.yaml:4:23: each item of `environment` must be a string, and this is the number `5`; put it in quotes
        error a.yaml:5:13: `labels` must be a mapping or a list, and this is the string `text`
    "#]],
    );
    let large = format!("environment:\n  A: {}", "x".repeat(128 * 1024 + 1));
    check_web(
        &large,
        expect![[r#"
        error a.yaml:5:10: `A` has 131073 bytes; Linux passes 131072 at most; put it into a file of the image
    "#]],
    );
}

#[test]
fn a_label_may_be_empty_and_is_no_template() {
    check_web(
        "labels:\n  a:\n  b: '{{x}}'\n  c: 1\ndeploy:\n  labels: [d, e=f]",
        expect![[r#"
        web
          image nginx:latest
          service label d = ""
          service label e = "f"
          label a = ""
          label b = "{{x}}"
          label c = "1"
    "#]],
    );
}

#[test]
fn a_directory_is_absolute_and_a_user_is_one() {
    check_web(
        "working_dir: srv\nuser: a:b:c",
        expect![[r#"
        error a.yaml:4:18: `working_dir` must be an absolute path, and this is `srv`; begin it with `/`
        error a.yaml:5:11: `a:b:c` is not a user; write `user`, `uid`, `user:group` or `uid:gid`
    "#]],
    );
    check_web(
        "user: 1000\nworking_dir: true",
        expect![[r#"
        error a.yaml:4:11: `user` must be a string, and this is the number `1000`; put it in quotes
        error a.yaml:5:18: `working_dir` must be a string, and this is the boolean `true`; put it in quotes
    "#]],
    );
    check_web(
        "user: ''\nworking_dir: ''",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
}

#[test]
fn restart_counts_without_a_restart_policy() {
    check_web(
        "restart: no",
        expect![[r#"
        web
          image nginx:latest
          restart Never delay=None max=None window=5s
    "#]],
    );
    check_web(
        "restart: on-failure:3",
        expect![[r#"
        web
          image nginx:latest
          restart OnFailure delay=None max=Some(3) window=5s
    "#]],
    );
    check_web(
        "restart: on-failure:0",
        expect![[r#"
        web
          image nginx:latest
          restart OnFailure delay=None max=None window=5s
    "#]],
    );
    check_web(
        "restart: always",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "restart: false",
        expect![[r#"
        error a.yaml:4:14: `restart` must be a string, and this is the boolean `false`; put it in quotes
    "#]],
    );
    check_web(
        "restart: never",
        expect![[r#"
        error a.yaml:4:14: `restart` cannot be `never`; write no, always, on-failure, on-failure:5 or unless-stopped
    "#]],
    );
    check_web(
        "restart: always:3",
        expect![[r#"
        error a.yaml:4:14: `restart` cannot be `always:3`; write no, always, on-failure, on-failure:5 or unless-stopped
    "#]],
    );
    check_web(
        "restart: on-failure:many",
        expect![[r#"
        error a.yaml:4:14: `many` is not a number of restarts; write for example on-failure:5
    "#]],
    );
}

#[test]
fn a_restart_policy_has_swarms_meaning() {
    check_web(
        "restart: always\ndeploy:\n  restart_policy: {condition: on-failure, delay: 1m30s, max_attempts: 4, window: 500ms}",
        expect![[r#"
            web
              image nginx:latest
              restart OnFailure delay=Some(90s) max=Some(4) window=500ms
            warning a.yaml:4:5: `deploy.restart_policy` holds, so `restart` means nothing; take it out
        "#]],
    );
    check_web(
        "deploy:\n  restart_policy:\n    condition: never\n    delay: 5\n    max_attempts: -1\n    window: -1s\n    every: 1s",
        expect![[r#"
            error a.yaml:6:20: `condition` cannot be `never`; write none, on-failure or any
            error a.yaml:7:16: `delay`: `5` is not a duration: write for example 10s, 1m30s or 500ms
            error a.yaml:8:23: `max_attempts` must be a whole number from 0 to 4294967295, and this is the number `-1`
            error a.yaml:9:17: `window`: `-1s` is not a duration: write for example 10s, 1m30s or 500ms
            error a.yaml:10:9: unknown key `every`; it is not in the Compose Specification; keys of your own begin with `x-`
        "#]],
    );
}

#[test]
fn replicas_are_a_number_that_can_be_meant() {
    check_web(
        "deploy: {replicas: 0}",
        expect![[r#"
        web
          image nginx:latest
          replicas 0
    "#]],
    );
    for bad in ["-1", "100001", "1.5", "many", "99999999999999999999", "[1]", "true", "''", "~"] {
        let yaml = super::web(&format!("deploy: {{replicas: {bad}}}"));
        let result = spec::load(&super::sources(&[&yaml]), &super::variables());
        let problems = result.unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{bad}: {problems}") };
        assert_eq!((problem.line(), problem.column()), (4, 24), "{bad}");
        let wanted = "`replicas` must be a whole number from 0 to 100000, and this is ";
        assert!(problem.message().starts_with(wanted), "{bad}: {problem}");
    }
}

#[test]
fn a_global_service_is_on_every_node_and_has_no_number() {
    check_web(
        "deploy: {mode: global}",
        expect![[r#"
        web
          image nginx:latest
          on every node
    "#]],
    );
    check_web(
        "deploy: {mode: global, replicas: 3}",
        expect![[r#"
            error a.yaml:4:38: what is `global` has a task on every node, and no number of replicas; take out one of the two
        "#]],
    );
    check_web(
        "scale: 1\ndeploy: {mode: global}",
        expect![[r#"
            error a.yaml:4:12: what is `global` has a task on every node, and no number of replicas; take out one of the two
        "#]],
    );
    check_web(
        "deploy: {mode: everywhere}",
        expect![[r#"
            error a.yaml:4:20: `everywhere` is not a mode of a service; write replicated, global, replicated-job or global-job
        "#]],
    );
}

#[test]
fn a_job_runs_to_its_end_and_is_restarted_on_failure() {
    check_web(
        "deploy: {mode: replicated-job}",
        expect![[r#"
            web
              image nginx:latest
              to its end JobSpec { parallelism: None, deadline: None, history: 5, schedule: None }
              restart OnFailure delay=None max=None window=3153600000s
        "#]],
    );
    check_web(
        "deploy: {mode: global-job, restart_policy: {max_attempts: 3}}\nx-gantry:\n  job: {parallelism: 2, deadline: 10m, history: 20}",
        expect![[r#"
            web
              image nginx:latest
              on every node
              to its end JobSpec { parallelism: Some(2), deadline: Some(600s), history: 20, schedule: None }
              restart OnFailure delay=None max=Some(3) window=3153600000s
        "#]],
    );
    check_web(
        "restart: \"no\"\ndeploy: {mode: replicated-job, replicas: 4}",
        expect![[r#"
            web
              image nginx:latest
              replicas 4
              to its end JobSpec { parallelism: None, deadline: None, history: 5, schedule: None }
              restart Never delay=None max=None window=3153600000s
        "#]],
    );
}

#[test]
fn a_job_may_have_times_of_its_own() {
    check_web(
        "deploy: {mode: replicated-job}\nx-gantry: {schedule: 30 3 * * MON-FRI}",
        expect![[r#"
        web
          image nginx:latest
          to its end JobSpec { parallelism: None, deadline: None, history: 5, schedule: Some(Schedule { cron: "30 3 * * MON-FRI", zone: "UTC", overlap: Skip, missed: Run }) }
          restart OnFailure delay=None max=None window=3153600000s
    "#]],
    );
    check_web(
        "deploy: {mode: global-job}\nx-gantry:\n  schedule: {cron: \"@daily\", timezone: Europe/Berlin, overlap: replace, missed: skip}",
        expect![[r#"
            web
              image nginx:latest
              on every node
              to its end JobSpec { parallelism: None, deadline: None, history: 5, schedule: Some(Schedule { cron: "@daily", zone: "Europe/Berlin", overlap: Replace, missed: Skip }) }
              restart OnFailure delay=None max=None window=3153600000s
        "#]],
    );
}

#[test]
fn times_that_cannot_be_are_refused_where_they_stand() {
    check_web(
        "x-gantry: {schedule: \"@daily\"}",
        expect![[r#"
        error a.yaml:4:16: a service that runs for good is no job; write `deploy: {mode: replicated-job}` or `global-job`
    "#]],
    );
    check_web(
        "deploy: {mode: replicated-job}\nx-gantry: {schedule: 61 * * * *}",
        expect![[r#"
            error a.yaml:5:26: `61 * * * *` is not a cron expression: Number out of bounds; write minute, hour, day of the month, month and day of the week: `30 3 * * MON-FRI`, or `@daily`
        "#]],
    );
    check_web(
        "deploy: {mode: replicated-job}\nx-gantry: {schedule: 0 0 31 2 *}",
        expect![[r#"
        error a.yaml:5:26: `0 0 31 2 *` never comes; write minute, hour, day of the month, month and day of the week: `30 3 * * MON-FRI`, or `@daily`
    "#]],
    );
    check_web(
        "deploy: {mode: replicated-job}\nx-gantry: {schedule: [1]}",
        expect![[r#"
        error a.yaml:5:26: `schedule` must be a string, and this is a list
    "#]],
    );
    check_web(
        "deploy: {mode: replicated-job}\nx-gantry: {schedule: {timezone: UTC}}",
        expect![[r#"
        error a.yaml:5:26: `schedule` does not say when; write for example `cron: "0 3 * * *"`
    "#]],
    );
    check_web(
        "deploy: {mode: replicated-job}\nx-gantry:\n  schedule: {cron: \"@daily\", timezone: Mars/Phobos, overlap: queue, missed: all, every: 5m}",
        expect![[r#"
            error a.yaml:6:44: there is no time zone `Mars/Phobos`; write one of IANA's names, such as `Europe/Berlin`
            error a.yaml:6:66: `overlap` cannot be `queue`; write skip or allow or replace
            error a.yaml:6:81: `missed` cannot be `all`; write run or skip
            error a.yaml:6:86: unknown key `every`; there are cron, timezone, overlap and missed
        "#]],
    );
}

#[test]
fn how_versions_change_means_nothing_for_a_job() {
    check_web(
        "deploy: {mode: replicated-job, update_config: {parallelism: 2}, rollback_config: {}}\nx-gantry: {rollout: {min_healthy: 1s}}",
        expect![[r#"
            web
              image nginx:latest
              to its end JobSpec { parallelism: None, deadline: None, history: 5, schedule: None }
              restart OnFailure delay=None max=None window=3153600000s
              update parallelism=2 min_healthy=Some(1s)
              rollback min_healthy=Some(1s)
            warning a.yaml:4:36: this means nothing for a job: a changed one is done anew; take it out
            warning a.yaml:4:69: this means nothing for a job: a changed one is done anew; take it out
            warning a.yaml:5:16: this means nothing for a job: a changed one is done anew; take it out
        "#]],
    );
}

#[test]
fn a_job_that_cannot_be_is_refused_where_it_stands() {
    check_web(
        "restart: always\ndeploy: {mode: replicated-job}",
        expect![[r#"
            error a.yaml:4:14: a job is not started again once it has succeeded; let it be restarted on-failure, or not at all
        "#]],
    );
    check_web(
        "deploy: {mode: replicated-job, restart_policy: {condition: any}}",
        expect![[r#"
        error a.yaml:4:64: a job is not started again once it has succeeded; let it be restarted on-failure, or not at all
    "#]],
    );
    check_web(
        "x-gantry:\n  job: {deadline: 10m}",
        expect![[r#"
        error a.yaml:5:7: a service that runs for good is no job; write `deploy: {mode: replicated-job}` or `global-job`
    "#]],
    );
    check_web(
        "deploy: {mode: global-job, replicas: 2}\nx-gantry:\n  job: {parallelism: 0, deadline: 0s, history: 1000, retries: 3}",
        expect![[r#"
            error a.yaml:4:42: what is `global` has a task on every node, and no number of replicas; take out one of the two
            error a.yaml:6:26: `parallelism` must be a whole number from 1 to 4294967295, and this is the number `0`
            error a.yaml:6:39: no job is done within no time; write for example `10m`
            error a.yaml:6:52: `history` must be a whole number from 1 to 100, and this is the number `1000`
            error a.yaml:6:58: unknown key `retries`; there are parallelism, deadline and history
        "#]],
    );
}

#[test]
fn deploy_takes_its_own_keys_only() {
    check_web(
        "deploy:\n  endpoint_mode: vip\n  replica: 3\n  placement: {preference: []}\n  resources: {limit: {}}\n  labels: 5",
        expect![[r#"
            error a.yaml:5:7: gantry does not do `endpoint_mode` yet; take it out to deploy without it
            error a.yaml:6:7: unknown key `replica`; did you mean `replicas`?
            error a.yaml:7:19: unknown key `preference`; did you mean `preferences`?
            error a.yaml:8:19: unknown key `limit`; did you mean `limits`?
            error a.yaml:9:15: `deploy.labels` must be a mapping or a list, and this is the number `5`
        "#]],
    );
    check_web(
        "deploy: {mode: several}",
        expect![[r#"
            error a.yaml:4:20: `several` is not a mode of a service; write replicated, global, replicated-job or global-job
        "#]],
    );
    check_web(
        "deploy:",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
}

#[test]
fn resources_are_quantities_within_reason() {
    check_web(
        "deploy:\n  resources:\n    limits:\n      cpus: '-1'\n      memory: 1x\n      pids: -5\n    reservations:\n      cpus: 1e3\n      memory: [1]\n      devices: []",
        expect![[r#"
            error a.yaml:7:17: `cpus`: `-1` is not a number of CPUs: write for example 0.5 or 2
            error a.yaml:8:19: `memory`: `1x` is not a size: write for example 64m, 1gb or 1048576
            error a.yaml:9:17: `pids` must be a whole number from 0 to 4294967295, and this is the number `-5`
            error a.yaml:11:17: `cpus`: `1e3` is not a number of CPUs: write for example 0.5 or 2
            error a.yaml:12:19: `memory` must be a quantity, and this is a list
            error a.yaml:13:11: gantry does not do `devices` yet; take it out to deploy without it
        "#]],
    );
    check_web(
        "deploy:\n  resources:\n    limits: {cpus: 0.001, memory: 1m}\n",
        expect![[r#"
            error a.yaml:6:24: the limit is below 0.01, which nothing can run in; write `0.01` or more, or take it out for no limit
            error a.yaml:6:39: the limit is below 6m, which nothing can run in; write `6m` or more, or take it out for no limit
        "#]],
    );
    check_web(
        "deploy:\n  resources:\n    limits: {cpus: 0, memory: 0, pids: 0}\n    reservations: {memory: 1048576}",
        expect![[r#"
            web
              image nginx:latest
              reserved 0 cpus, 1 MiB
        "#]],
    );
}

#[test]
fn a_reservation_stays_below_its_limit() {
    check_web(
        "deploy:\n  resources:\n    limits: {cpus: 1, memory: 64m}\n    reservations: {cpus: 1.5, memory: 1g}",
        expect![[r#"
            error a.yaml:7:30: this reserves more cpus than the limit on line 6 allows; reserve at most what the limit is
            error a.yaml:7:43: this reserves more memory than the limit on line 6 allows; reserve at most what the limit is
        "#]],
    );
}
