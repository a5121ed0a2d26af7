//! What can be typed.

use clap::{CommandFactory as _, Parser};

use super::*;
use crate::Global;

/// As crate `gantry` puts it together.
#[derive(Debug, Parser)]
#[command(name = "gantry")]
struct Gantry {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: UserCommand,
}

fn parse(line: &str) -> Result<Gantry, clap::Error> {
    Gantry::try_parse_from(line.split_whitespace())
}

/// The first line of what is wrong with a command line. All of these exit with 2.
fn refusal(line: &str) -> String {
    let error = parse(line).map(|accepted| format!("{accepted:?}")).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_definitions_do_not_contradict_each_other() {
    Gantry::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_accepted() {
    for line in [
        "gantry deploy -f compose.yaml",
        "gantry deploy -f a.yaml -f b.yaml hello --detach --timeout 90s",
        "gantry deploy -f - hello",
        "gantry rm hello",
        "gantry scale hello/web=9 hello/db=1",
        "gantry stacks -o json",
        "gantry services hello -o wide",
        "gantry ps",
        "gantry ps hello/web --all -o yaml",
        "gantry ps n1",
        "gantry inspect s1-2-3 -o yaml",
        "gantry logs hello/web.2 -f --since 10m --tail 100 --timestamps",
        "gantry logs hello --since 2026-03-01T12:00:00Z --until 1772366400 -n all -t --no-prefix",
        "gantry logs hello -f -o json",
        "gantry run hello/web",
        "gantry run -it --rm -u root -w / -e A=1 -e HOME --entrypoint sh hello/web -c 'true'",
        "gantry run -d --keep --name mine --timeout 30s hello/web ./report --all --context other",
        "gantry exec hello/web.1 -- ls -la",
        "gantry exec -it -u root -w / -e A=1 -e HOME --privileged hello/web sh",
        "gantry exec -T hello/web sh -c true --context other",
        "gantry attach --no-stdin hello/web",
        "gantry cp -aL hello/web.1:/etc/x ./a:b",
        "gantry cp - hello/web:/srv",
        "gantry kill -s SIGRTMIN+3 hello/web.1",
        "gantry kill s1-2-3",
        "gantry pause hello/web.1",
        "gantry unpause hello/web.1",
        "gantry resume hello/web.1",
        "gantry stats",
        "gantry stats --no-stream --interval 500ms hello/web n1 -o json",
        "gantry top --once -o wide",
        "gantry top hello/web.1",
        "gantry diff hello/web.1 -o yaml",
        "gantry commit hello/web.1 hello:patched",
        "gantry commit -m patched -a me --no-pause -c USER=app -c EXPOSE=80 s1-2-3 hello:patched",
        "gantry node ls -o json",
        "gantry image import nginx.tar",
        "gantry image import - nginx:1.22",
        "gantry image ls",
        "gantry image rm nginx",
        "gantry image pull nginx:1.22 --node n2",
        "gantry image push app:v1 --as registry.example:5000/team/app:v1",
        "gantry image tag app:v1 registry.example:5000/team/app:v1",
        "gantry image save nginx -o nginx.tar",
        "gantry image save nginx -o -",
        "gantry image inspect nginx -o yaml",
        "gantry registry login",
        "gantry registry login registry.example:5000 -u me --password-stdin",
        "gantry registry logout registry.example:5000",
        "gantry registry ls -o json",
        "gantry registry set registry.lan:5000 --insecure --ca a.pem --mirror https://m.lan --mirror n.lan",
        "gantry registry rm registry.lan:5000",
        "gantry token create --role worker --valid 1h",
        "gantry version -o json",
        "gantry ps --context dev",
        "gantry --context dev ps",
    ] {
        if let Err(error) = parse(line) {
            panic!("`{line}` was refused: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    for line in [
        "gantry",
        "gantry deploy",
        "gantry deploy -f a.yaml Hello",
        "gantry deploy -f a.yaml --timeout 5",
        "gantry deploy -f a.yaml --timeout 0s",
        "gantry deploy -f a.yaml --timeout 99999h",
        "gantry rm ../hello",
        "gantry scale",
        "gantry scale hello/web",
        "gantry scale web=3",
        "gantry scale hello/web=-1",
        "gantry scale hello/web=100001",
        "gantry scale hello/web=99999999999999999999",
        "gantry ps Hello",
        "gantry services a/b/c",
        "gantry deploy -f a.yaml --timeout -5s",
        "gantry logs hello --tail many",
        "gantry logs hello --tail -1",
        "gantry logs hello --since yesterday",
        "gantry logs hello --until tomorrow",
        "gantry logs hello -o yaml",
        "gantry run",
        "gantry run web sh",
        "gantry run --rm --keep hello/web",
        "gantry run -t -T hello/web",
        "gantry run --name Mine hello/web",
        "gantry run --timeout 0s hello/web",
        "gantry commit hello/web",
        "gantry commit hello/web Hello",
        "gantry exec",
        "gantry exec hello/web",
        "gantry exec -t -T hello/web sh",
        "gantry exec -e =x hello/web sh",
        "gantry attach",
        "gantry cp hello/web:/etc",
        "gantry cp hello/web: .",
        "gantry cp :/etc .",
        "gantry kill -s SIGNOTHING hello/web",
        "gantry pause",
        "gantry stats --interval 0s",
        "gantry stats --interval often",
        "gantry image import nginx.tar Nginx",
        "gantry image rm nginx@sha256:00",
        "gantry image pull Nginx",
        "gantry image save nginx",
        "gantry image tag app:v1",
        "gantry registry login https://registry.example/v2",
        "gantry registry login registry.example --password-stdin",
        "gantry registry set registry.lan --mirror http://mirror.lan",
        "gantry token create --role king",
        "gantry token create",
        "gantry ps -o xml",
    ] {
        let _ = refusal(line);
    }
}

#[test]
fn a_refusal_says_what_is_wrong_with_the_value() {
    let scale = refusal("gantry scale hello/web=100001");
    assert!(scale.contains("hello/web=100001") && scale.contains("100000 replicas at most"), "{scale}");
    let name = refusal("gantry rm Hello");
    assert!(name.contains("not a DNS label"), "{name}");
    let timeout = refusal("gantry rm hello --timeout -5s");
    assert!(timeout.contains("--timeout") && timeout.contains("`-5s` is not a duration"), "{timeout}");
    let since = refusal("gantry logs hello --since -1h");
    assert!(since.contains("--since") && since.contains("`-1h` is not a time"), "{since}");
    let signal = refusal("gantry kill -s SIGNOTHING hello/web");
    assert!(signal.contains("`SIGNOTHING` is not a signal"), "{signal}");
    let place = refusal("gantry cp hello/web: .");
    assert!(place.contains("it names no path: write it as hello/web:PATH"), "{place}");
    let tail = refusal("gantry logs hello --tail -1");
    assert!(tail.contains("'-1'") && tail.contains("--tail"), "{tail}");
}

#[test]
fn every_command_has_examples_in_its_help() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            command.get_subcommands().for_each(|below| check(below, &path));
            return;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(path.trim()), "`{path}` has no example of itself: {help}");
        assert!(command.get_about().is_some(), "`{path}` does not say what it does");
    }
    check(&Gantry::command(), "");
}
