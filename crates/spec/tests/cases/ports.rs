use expect_test::expect;

use super::{check_files, check_web, web};

#[test]
fn a_container_port_alone_gets_any_port_of_the_node() {
    check_web(
        "ports:\n- 80\n- \"81\"\n- 53/udp\n- 82/TCP\n- target: 83\n- {target: 84, mode: host, protocol: udp}",
        expect![[r#"
        web
          image nginx:latest
          port 80/tcp at any
          port 81/tcp at any
          port 53/udp at any
          port 82/tcp at any
          port 83/tcp at any
          port 84/udp at any
    "#]],
    );
}

#[test]
fn a_fixed_port_is_one_of_the_node() {
    check_web(
        "ports:\n- {target: 80, published: \"8080\", mode: host}\n- {target: 80, published: 8080, mode: host, protocol: udp}",
        expect![[r#"
        web
          image nginx:latest
          port 80/tcp at 8080
          port 80/udp at 8080
    "#]],
    );
}

#[test]
fn a_port_of_the_whole_cluster_is_not_yet() {
    check_web(
        "ports:\n- 8080:80\n- 53:53/udp\n- {target: 80, published: 8080}\n- {target: 80, published: 8080, mode: ingress}\n- {target: 80, mode: ingress}",
        expect![[r#"
            error a.yaml:5:7: a fixed port needs `mode: host`: gantry does not publish ports of the whole cluster yet; write `{target: 80, published: 8080, mode: host}`, or the target alone for a free port of the node
            error a.yaml:6:7: a fixed port needs `mode: host`: gantry does not publish ports of the whole cluster yet; write `{target: 53, published: 53, protocol: udp, mode: host}`, or the target alone for a free port of the node
            error a.yaml:7:31: a fixed port needs `mode: host`: gantry does not publish ports of the whole cluster yet; write `{target: 80, published: 8080, mode: host}`, or the target alone for a free port of the node
            error a.yaml:8:43: gantry does not do `mode: ingress` yet; write `mode: host`
            error a.yaml:9:26: gantry does not do `mode: ingress` yet; write `mode: host`
        "#]],
    );
}

#[test]
fn malformed_ports_are_refused() {
    check_web(
        "ports:\n- 0\n- 70000\n- http\n- 80/sctp\n- 80/x\n- 8000-8010\n- 127.0.0.1:80:80\n- 1.5\n- [80]\n- -80",
        expect![[r#"
            error a.yaml:5:7: `0` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
            error a.yaml:6:7: `70000` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
            error a.yaml:7:7: `http` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
            error a.yaml:8:7: gantry does not do sctp yet; write tcp or udp
            error a.yaml:9:7: `x` is not a protocol; write tcp or udp
            error a.yaml:10:7: gantry does not do ranges of ports yet; write each port
            error a.yaml:11:7: gantry does not do `host_ip` yet; a published port is reached on all addresses of its node
            error a.yaml:12:7: a port must be a number, a string or a mapping, and this is the number `1.5`; write for example `80` or `{target: 80}`
            error a.yaml:13:7: a port must be a number, a string or a mapping, and this is a list; write for example `80` or `{target: 80}`
            error a.yaml:14:7: `-80` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
        "#]],
    );
    check_web(
        "ports:\n- {target: 0}\n- {published: 80, mode: host}\n- {target: 80, published: 80-90, mode: host}\n- {target: 80, mode: guest}\n- {target: 80, protocol: sctp}\n- {target: 80, name: web, tagret: 1}",
        expect![[r#"
            error a.yaml:5:16: `target` must be a whole number from 1 to 65535, and this is the number `0`
            error a.yaml:6:7: this port has no `target`; write `target: 80`, the container's port
            error a.yaml:7:31: gantry does not do ranges of ports yet; write each port
            error a.yaml:8:26: `guest` is not a mode of a port; write `mode: host`
            error a.yaml:9:30: gantry does not do sctp yet; write tcp or udp
            error a.yaml:10:20: gantry does not do `name` yet; take it out to deploy without it
            error a.yaml:10:31: unknown key `tagret`; did you mean `target`?
            warning a.yaml:8:7: the port 80/tcp is already on line 7; once is enough
            warning a.yaml:9:7: the port 80/tcp is already on line 7; once is enough
            warning a.yaml:10:7: the port 80/tcp is already on line 7; once is enough
        "#]],
    );
    check_web(
        "ports: 80",
        expect![[r#"
        error a.yaml:4:12: `ports` must be a list, and this is the number `80`
    "#]],
    );
}

#[test]
fn a_host_port_is_taken_once_and_a_repetition_is_told() {
    check_web(
        "ports:\n- {target: 80, published: 8080, mode: host}\n- {target: 81, published: 8080, mode: host}\n- 90\n- 90/tcp",
        expect![[r#"
            error a.yaml:6:7: the host port 8080/tcp is already taken on line 5; publish another one, or leave `published` out for a free one
            warning a.yaml:8:7: the port 90/tcp is already on line 7; once is enough
        "#]],
    );
}

#[test]
fn a_later_file_may_repeat_a_port_and_not_take_it_for_another() {
    let base = web("ports: [90, {target: 80, published: 8080, mode: host}]");
    let same = web("ports: [{target: 80, published: 8080, mode: host}, 90, 91]");
    check_files(
        &[&base, &same],
        &expect![[r#"
        web
          image nginx:latest
          port 90/tcp at any
          port 80/tcp at 8080
          port 91/tcp at any
    "#]],
    );
    let other = web("ports: [{target: 81, published: 8080, mode: host}]");
    check_files(
        &[&base, &other],
        &expect![[r#"
        error b.yaml:4:13: the host port 8080/tcp is already taken in another file; publish another one, or leave `published` out for a free one
    "#]],
    );
}
