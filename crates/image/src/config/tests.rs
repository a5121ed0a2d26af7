use super::*;

/// A configuration for this machine with one layer and this `config`.
fn parse(execution: &str) -> Result<ImageConfig, InvalidConfig> {
    let here = Platform::here();
    let text = format!(
        r#"{{"architecture":"{}","os":"linux","config":{execution},"created":"2024-01-01T00:00:00Z",
            "rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"empty_layer":true}}]}}"#,
        here.architecture,
        Digest([7; 32]),
    );
    ImageConfig::parse(text.as_bytes(), 1)
}

#[test]
fn a_real_configuration_is_read() {
    let read = parse(
        r#"{"User":"101:nginx","ExposedPorts":{"80/tcp":{},"53/udp":{},"9/sctp":{}},"Env":["PATH=/bin","A=b=c"],
            "Entrypoint":["/entry.sh"],"Cmd":["nginx","-g","daemon off;"],"WorkingDir":"/srv","OnBuild":null,
            "Labels":{"a":"b"},"StopSignal":"SIGQUIT","Volumes":{"/data":{}},"ArgsEscaped":true}"#,
    );
    let ImageConfig { config, diff_ids } = read.unwrap();
    assert_eq!(diff_ids, [Digest([7; 32])]);
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let expected = Config {
        entrypoint: strings(&["/entry.sh"]),
        cmd: strings(&["nginx", "-g", "daemon off;"]),
        env: strings(&["PATH=/bin", "A=b=c"]),
        working_dir: "/srv".to_owned(),
        user: Some("101:nginx".to_owned()),
        stop_signal: Some(3),
        exposed_ports: vec![(53, Protocol::Udp), (80, Protocol::Tcp)],
        volumes: strings(&["/data"]),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        health: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_absent_null_or_empty_is_the_default() {
    let default = Config { working_dir: "/".to_owned(), ..Config::default() };
    for execution in
        ["null", "{}", r#"{"Cmd":null,"Env":null,"User":"","WorkingDir":"","StopSignal":"","Labels":null}"#]
    {
        assert_eq!(parse(execution).unwrap().config, default, "{execution}");
    }
}

#[test]
fn a_hostile_configuration_is_refused() {
    let long = format!(r#"{{"Cmd":["{}"]}}"#, "x".repeat(ARGUMENT));
    for bad in [
        r#"{"User":"4294967296"}"#,
        r#"{"User":"2147483648"}"#,
        r#"{"User":"-1"}"#,
        r#"{"User":"0:4294967296"}"#,
        r#"{"User":"root:"}"#,
        r#"{"User":"a b"}"#,
        r#"{"Volumes":{"/../../etc":{}}}"#,
        r#"{"Volumes":{"etc":{}}}"#,
        r#"{"WorkingDir":"srv"}"#,
        r#"{"WorkingDir":"/a/../../b"}"#,
        r#"{"Env":["=x"]}"#,
        r#"{"Env":["PATH"]}"#,
        r#"{"Cmd":["a\u0000b"]}"#,
        r#"{"StopSignal":"SIGNOTHING"}"#,
        r#"{"StopSignal":"65"}"#,
        r#"{"ExposedPorts":{"0/tcp":{}}}"#,
        r#"{"ExposedPorts":{"99999":{}}}"#,
        long.as_str(),
    ] {
        assert!(matches!(parse(bad), Err(InvalidConfig::Field { .. })), "{bad:.80} was accepted");
    }
}

#[test]
fn a_configuration_belongs_to_one_platform_and_its_layers() {
    let text = |os: &str, architecture: &str, kind: &str| {
        format!(
            r#"{{"architecture":"{architecture}","os":"{os}","rootfs":{{"type":"{kind}","diff_ids":[]}}}}"#
        )
    };
    let here = Platform::here().architecture;
    let parse = |text: String, layers| ImageConfig::parse(text.as_bytes(), layers).unwrap_err();
    assert!(matches!(parse(text("windows", &here, "layers"), 0), InvalidConfig::Platform { .. }));
    assert!(matches!(parse(text("linux", "s390x", "layers"), 0), InvalidConfig::Platform { .. }));
    assert!(matches!(parse(text("linux", &here, "disk"), 0), InvalidConfig::RootFs(_)));
    assert!(matches!(
        parse(text("linux", &here, "layers"), 1),
        InvalidConfig::Layers { listed: 0, actual: 1 }
    ));
}

#[test]
fn a_health_check_is_read_as_docker_writes_it() {
    let exec = |words: &[&str]| Some(Probe::Exec(words.iter().map(|word| (*word).to_owned()).collect()));
    for (test, probe) in [
        (r#"["CMD","curl","-f","http://localhost/"]"#, exec(&["curl", "-f", "http://localhost/"])),
        (r#"["CMD-SHELL","exit 0"]"#, exec(&["/bin/sh", "-c", "exit 0"])),
        (r#"["NONE"]"#, None),
        (r#"["LATER","x"]"#, None),
        ("[]", None),
        ("null", None),
    ] {
        let execution = format!(
            r#"{{"Healthcheck":{{"Test":{test},"Interval":30000000000,"Timeout":1500000,"Retries":5,
                "StartPeriod":0,"StartInterval":9223372036854775807}}}}"#
        );
        let expected = HealthCheck {
            probe,
            interval: Some(Duration::from_secs(30)),
            timeout: Some(Duration::from_micros(1500)),
            retries: Some(5),
            start_period: None,
            start_interval: Some(Duration::from_nanos(i64::MAX.unsigned_abs())),
        };
        assert_eq!(parse(&execution).unwrap().config.health, Some(expected), "{test}");
    }
    let own = r#"{"Shell":["/bin/bash","-ec"],"Healthcheck":{"Test":["CMD-SHELL","exit 0"]}}"#;
    let probe = exec(&["/bin/bash", "-ec", "exit 0"]);
    let expected = HealthCheck { probe, ..HealthCheck::default() };
    assert_eq!(parse(own).unwrap().config.health, Some(expected));
}

#[test]
fn a_hostile_health_check_is_refused() {
    let long = format!(r#"{{"Test":["CMD","{}"]}}"#, "x".repeat(ARGUMENT));
    let many = format!(r#"{{"Test":["CMD"{}]}}"#, r#","x""#.repeat(ARGUMENTS));
    for bad in [
        r#"{"Test":["CMD"]}"#,
        r#"{"Test":["CMD-SHELL"]}"#,
        r#"{"Test":["CMD","a\u0000b"]}"#,
        r#"{"Test":["CMD","true"],"Interval":-1}"#,
        r#"{"Timeout":-9223372036854775808}"#,
        r#"{"StartPeriod":-1}"#,
        r#"{"StartInterval":-1}"#,
        r#"{"Retries":-1}"#,
        r#"{"Retries":4294967296}"#,
        long.as_str(),
        many.as_str(),
    ] {
        let read = parse(&format!(r#"{{"Healthcheck":{bad}}}"#));
        assert!(matches!(read, Err(InvalidConfig::Field { .. })), "{bad:.80} was accepted");
    }
    for bad in [r#"{"Interval":"30s"}"#, r#"{"Interval":9223372036854775808}"#, r#"{"Retries":1.5}"#, "[1]"] {
        let read = parse(&format!(r#"{{"Healthcheck":{bad}}}"#));
        assert!(matches!(read, Err(InvalidConfig::Json(_))), "{bad} was accepted");
    }
}

#[test]
fn a_plain_layer_gets_a_configuration_that_reads_back() {
    let written = ImageConfig::of_plain_layer(Digest([7; 32]));
    let read = ImageConfig::parse(&written, 1).unwrap();
    assert_eq!(read.config, Config { working_dir: "/".to_owned(), ..Config::default() });
    assert_eq!(read.diff_ids, [Digest([7; 32])]);
    assert_eq!(written, ImageConfig::of_plain_layer(Digest([7; 32])));
}
