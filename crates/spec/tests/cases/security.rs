use expect_test::expect;

use super::{check, check_web};

#[test]
fn capabilities_and_security_options_reach_the_model() {
    check_web(
        "cap_add: [NET_ADMIN, cap_sys_ptrace]\ncap_drop: [all]\nsecurity_opt:\n- no-new-privileges:true\n- seccomp=unconfined\n- apparmor=docker-default\n- systempaths=unconfined",
        expect![[r#"
        web
          image nginx:latest
          add CAP_NET_ADMIN
          add CAP_SYS_PTRACE
          drop all
          no new privileges
          seccomp unconfined
          apparmor "docker-default"
          unmasked
    "#]],
    );
    check_web(
        "security_opt: ['seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}', \"apparmor:unconfined\", no-new-privileges]",
        expect![[r#"
        web
          image nginx:latest
          no new privileges
          seccomp {"defaultAction": "SCMP_ACT_ALLOW"}
          apparmor "unconfined"
    "#]],
    );
    check_web(
        "security_opt: [seccomp=unconfined, seccomp=builtin, no-new-privileges, no-new-privileges=0]",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
}

#[test]
fn what_is_no_capability_or_security_option_is_refused() {
    check_web(
        "cap_add: [NET_ADMN, CAP_ALL, 5]\nsecurity_opt:\n- seccomp:./profile.json\n- 'seccomp={\"a\"'\n- 'seccomp={}'\n- label=disable\n- no-new-privileges:maybe\n- systempaths=masked\n- apparmor=a b\n- writable-cgroups=true\n- frobnicate\n- 5",
        expect![[r#"
        error a.yaml:4:15: `NET_ADMN` is not a capability; write for example NET_ADMIN, or ALL
        error a.yaml:4:25: `CAP_ALL` is not a capability; write for example NET_ADMIN, or ALL
        error a.yaml:4:34: each item of `cap_add` must be a string, and this is the number `5`; put it in quotes
        error a.yaml:6:7: gantry does not read the seccomp profile `./profile.json`: it would be a file of this machine; write its text in place of its name: `seccomp={…}`
        error a.yaml:7:7: the seccomp profile is not a JSON object: EOF while parsing an object at line 1 column 4; write it in Docker's form, as `seccomp={"defaultAction": …}`
        error a.yaml:8:7: the seccomp profile does not say what its `defaultAction` is; write it in Docker's form, as `seccomp={"defaultAction": …}`
        error a.yaml:10:7: `no-new-privileges` cannot be `maybe`; write no-new-privileges:true or :false
        error a.yaml:11:7: `systempaths` cannot be `masked`; write systempaths=unconfined, or take it out
        error a.yaml:12:7: `a b` is not the name of an AppArmor profile; name a profile that the nodes have loaded, or unconfined
        error a.yaml:13:7: gantry does not do the security option `writable-cgroups=true` yet; take it out to deploy without it
        error a.yaml:14:7: `frobnicate` is not a security option; there are no-new-privileges, seccomp=…, apparmor=PROFILE and systempaths=unconfined
        error a.yaml:15:7: each item of `security_opt` must be a string, and this is the number `5`; write for example `no-new-privileges:true`, in quotes
        warning a.yaml:9:7: `label=disable` is about SELinux, which gantry does not do; take it out
    "#]],
    );
}

#[test]
fn a_seccomp_profile_has_256_kib_at_most() {
    let profile = |padding: usize| {
        let text = format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\"{}}}", " ".repeat(padding));
        let text = super::web(&format!("security_opt: ['seccomp={text}']"));
        spec::load(&super::sources(&[&text]), &super::variables())
    };
    assert!(profile(200 * 1024).is_ok());
    let problems = profile(256 * 1024).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems}") };
    assert_eq!(problem.message(), "the seccomp profile has 262179 bytes; it may have 262144");
}

#[test]
fn a_namespace_is_the_nodes_or_the_containers_own() {
    check_web(
        "ipc: host\npid: host\nuts: host\ncgroup: host\nuserns_mode: host",
        expect![[r#"
        web
          image nginx:latest
          ipc of the node
          pid of the node
          uts of the node
          cgroup of the node
    "#]],
    );
    check_web(
        "ipc: private\npid: ~\ncgroup: private",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "userns_mode: auto",
        expect![[r#"
        error a.yaml:4:18: gantry does not do `userns_mode: auto` yet; take it out: the container's users are the node's
    "#]],
    );
    check_web(
        "ipc: shareable\npid: \"service:db\"\nuts: private\ncgroup: none\nuserns_mode: keep-id",
        expect![[r#"
        error a.yaml:4:10: gantry does not do `ipc: shareable` yet; write host, or take it out for one of the container's own
        error a.yaml:5:10: gantry does not do `pid: service:db` yet; write host, or take it out for one of the container's own
        error a.yaml:6:10: `uts` cannot be `private`; write host, or take it out for one of the container's own
        error a.yaml:7:13: `cgroup` cannot be `none`; write host, or take it out for one of the container's own
        error a.yaml:8:18: `userns_mode` cannot be `keep-id`; write host, or take it out
    "#]],
    );
}

#[test]
fn what_is_the_nodes_cannot_be_set_for_one_container() {
    check_web(
        "uts: host\nhostname: a\nipc: host\nshm_size: 1m\nsysctls: {kernel.shmmax: 1, net.core.somaxconn: 2}",
        expect![[r#"
        error a.yaml:5:5: `hostname` would be the node's, since `uts` is host; take one of them out
        error a.yaml:8:30: `kernel.shmmax` would be the node's, since `ipc` is host; take one of them out
        warning a.yaml:7:5: `ipc: host` has the node's `/dev/shm`, so `shm_size` means nothing; take one of them out
    "#]],
    );
}

#[test]
fn who_is_privileged_has_all_capabilities_and_the_nodes_users() {
    check_web(
        "privileged: true\ncap_add: [NET_ADMIN]\ncap_drop: [ALL]",
        expect![[r#"
        web
          image nginx:latest
          privileged
        warning a.yaml:5:5: `privileged` gives all capabilities, so `cap_add` means nothing; take one of them out
        warning a.yaml:6:5: `privileged` gives all capabilities, so `cap_drop` means nothing; take one of them out
    "#]],
    );
    check_web(
        "privileged: false\ncap_drop: [ALL]",
        expect![[r#"
        web
          image nginx:latest
          drop all
    "#]],
    );
}

#[test]
fn a_hardened_service_keeps_what_it_asks_for() {
    check_web(
        "x-gantry: {hardened: true}\ncap_add: [NET_BIND_SERVICE]",
        expect![[r#"
        web
          image nginx:latest
          read-only
          add CAP_NET_BIND_SERVICE
          drop all
          no new privileges
    "#]],
    );
    check_web(
        "x-gantry: {hardened: true}\nread_only: false\nsecurity_opt: [\"no-new-privileges:false\"]",
        expect![[r#"
        web
          image nginx:latest
          drop all
    "#]],
    );
}

#[test]
fn a_whole_project_is_hardened_but_for_those_who_say_otherwise() {
    check(
        "x-gantry: {hardened: true}\nservices:\n  a: {image: nginx}\n  b: {image: nginx, x-gantry: {hardened: false}}\n",
        expect![[r#"
        a
          image nginx:latest
          read-only
          drop all
          no new privileges
        b
          image nginx:latest
    "#]],
    );
    check(
        "services:\n  c: {image: nginx, privileged: true}\nx-gantry: {hardened: true}\n",
        expect![[r#"
        error a.yaml:2:21: a hardened service cannot be privileged; take it out, or write `x-gantry: {hardened: false}` in the service
    "#]],
    );
}

#[test]
fn x_gantry_has_keys_of_its_own() {
    check(
        "x-gantry: {hardend: true, health: {}}\nservices:\n  a: {image: nginx, x-gantry: {hardend: true, on_partition: {}}}\n  b: {image: nginx, x-gantry: [a], deploy: {x-gantry: {}}}\n",
        expect![[r#"
            error a.yaml:1:12: unknown key `hardend`; did you mean `hardened`?
            error a.yaml:1:27: unknown key `health`; at the top level there is `hardened`
            error a.yaml:3:32: unknown key `hardend`; did you mean `hardened`?
            error a.yaml:3:47: unknown key `on_partition`; there are health, readiness, hardened, rollout, job, schedule and placement
            error a.yaml:4:31: `x-gantry` must be a mapping, and this is a list
            error a.yaml:4:45: gantry does not do `x-gantry` yet; take it out to deploy without it
        "#]],
    );
}
