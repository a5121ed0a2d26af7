//! A container of its own in a service's environment: a stack with one service, whose task is run once.

use std::collections::BTreeMap;

use model::{
    Health, LogIndex, Name, RequestId, RestartCondition, RestartPolicy, ServiceName, ServiceSpec, TaskSpec,
};
use state::{Command, Declared, Rejected, Service, State};
use tonic::Status;
use wire::proto::api::{RunOnceReply, RunOnceRequest};

use crate::api::{Api, change, malformed, name, refused, service_name};

/// Of the letters that a name may have, those that nobody mistakes for others: RFC 4648's.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// So many in a name make two of a service's that meet unlikely: one in a thousand million.
const DRAWN: usize = 6;

/// The longest that a name may be.
const LABEL: usize = 63;

pub(super) async fn once(api: &Api, request: RunOnceRequest) -> Result<RunOnceReply, Status> {
    let id = wire::request_id(&request.request).map_err(malformed)?;
    let of = service_name(&request.service)?;
    let stack = match request.name.as_str() {
        "" => drawn(&of.stack, id),
        given => name(given)?,
    };
    let made = ServiceName { stack: stack.clone(), service: of.service.clone() };
    let state = api.state().await?;
    let done = match api.answered(&state, &request.request)? {
        Some(outcome) => outcome.map_err(|rejected| refused(&rejected))?,
        None => {
            let declared = declared(&state, &of, &stack, &request)?;
            let services = BTreeMap::from([(of.service, declared)]);
            // Whoever takes the name in this moment keeps it.
            let deploy = Command::Deploy { stack, services, expected: Some(LogIndex(0)) };
            api.propose_one(&request.request, deploy).await?
        }
    };
    let generation = change(&done, 0, Vec::new()).generation;
    Ok(RunOnceReply { service: made.to_string(), generation })
}

/// The same for the same request, so that one that is sent again finds what it has made.
fn drawn(stack: &Name, request: RequestId) -> Name {
    let letter = |at: usize| char::from(LETTERS[(request.0 >> (at * 5)) as usize % LETTERS.len()]);
    let letters: String = (0..DRAWN).map(letter).collect();
    let mark = format!("-run-{letters}");
    let kept: String = stack.as_str().chars().take(LABEL - mark.len()).collect();
    let name = format!("{}{mark}", kept.trim_end_matches('-'));
    name.parse().expect("a label that is cut begins and ends as a label does")
}

fn declared(
    state: &State,
    of: &ServiceName,
    stack: &Name,
    request: &RunOnceRequest,
) -> Result<Declared, Status> {
    let unknown = || refused(&Rejected::NoService(of.clone()));
    let (_, service) = state.service_named(of).ok_or_else(unknown)?;
    if state.stack(stack).is_some() {
        return Err(Status::already_exists(format!("there is a stack `{stack}` already")));
    }
    changed(service, request)
}

/// What the service is made from now, but for what makes it a service and for what was asked to be different.
fn changed(service: &Service, request: &RunOnceRequest) -> Result<Declared, Status> {
    let template = &service.templates[&service.version];
    let value = if request.keep { ServiceSpec::KEPT } else { ServiceSpec::ONCE };
    let labels = BTreeMap::from([(ServiceSpec::ONE_OFF.to_owned(), value.to_owned())]);
    let mut task = TaskSpec::clone(&template.task);
    task.labels.extend(labels.clone());
    // The service's own tasks have these.
    task.ports.clear();
    task.restart = RestartPolicy { condition: RestartCondition::Never, ..RestartPolicy::default() };
    task.health = Health::Disabled;
    task.readiness = None;
    task.container.tty = request.tty;
    task.container.stdin_open = request.stdin;
    task.container.hold = request.hold;
    override_with(request, &mut task)?;
    let spec = ServiceSpec { labels, ..ServiceSpec::replicated(1, task) };
    Ok(Declared { spec, image: template.image, keep_replicas: false })
}

fn override_with(request: &RunOnceRequest, task: &mut TaskSpec) -> Result<(), Status> {
    if let Some(entrypoint) = &request.entrypoint {
        task.entrypoint = Some(entrypoint.words.clone());
        // It was that one's.
        task.command = None;
    }
    if let Some(command) = &request.command {
        task.command = Some(command.words.clone());
    }
    for (name, value) in &request.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let text = format!("`{}` is not a variable", name.escape_debug());
            return Err(Status::invalid_argument(text));
        }
        task.environment.insert(name.clone(), value.clone());
    }
    if let Some(user) = &request.user {
        if user.is_empty() {
            return Err(Status::invalid_argument("a user cannot be empty"));
        }
        task.user = Some(user.clone());
    }
    if let Some(directory) = &request.working_dir {
        if !directory.starts_with('/') {
            let text = format!("the working directory `{}` is not absolute", directory.escape_debug());
            return Err(Status::invalid_argument(text));
        }
        task.working_dir = Some(directory.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use model::{PortSpec, Protocol, Publish};
    use tonic::{Code, Request};
    use wire::proto::api::RemoveStackRequest;
    use wire::proto::api::cluster_server::Cluster as _;
    use wire::proto::model::Words;

    use super::*;
    use crate::Control;
    use crate::alone::{self, deployment};

    /// A manager on which somebody runs `hello/web`.
    async fn api() -> Api {
        let api = Control::new(alone::manager().await).api();
        let mut service = alone::service(3);
        service.labels = pairs(&[("gone", "with the service")]);
        let task = &mut service.task;
        task.entrypoint = Some(vec!["/entry".to_owned()]);
        task.command = Some(vec!["serve".to_owned()]);
        task.environment = pairs(&[("KEPT", "1"), ("LEVEL", "info")]);
        task.labels = pairs(&[("kept", "1")]);
        task.user = Some("app".to_owned());
        task.ports = vec![PortSpec { target: 80, protocol: Protocol::Tcp, publish: Publish::HostPort(80) }];
        api.deploy(Request::new(deployment("", &service))).await.expect("there is nothing against it");
        api
    }

    fn pairs(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn words(of: &[&str]) -> Option<Words> {
        Some(Words { words: of.iter().map(|word| (*word).to_owned()).collect() })
    }

    fn request(number: u128) -> RunOnceRequest {
        let request = wire::request_text(RequestId(number));
        RunOnceRequest { request, service: "hello/web".to_owned(), ..RunOnceRequest::default() }
    }

    async fn run(api: &Api, request: RunOnceRequest) -> Result<RunOnceReply, Status> {
        Ok(api.run_once(Request::new(request)).await?.into_inner())
    }

    /// What was made of the one-off service, as far as it may differ from `hello/web`.
    async fn check(request: RunOnceRequest, expected: Expect) {
        let api = api().await;
        let made: ServiceName = run(&api, request).await.unwrap().service.parse().unwrap();
        let state = api.state().await.unwrap();
        let (_, service) = state.service_named(&made).unwrap();
        let ServiceSpec { mode, labels, task, .. } = &service.spec;
        let replicas = mode.replicas().unwrap();
        let of = state.service_named(&"hello/web".parse().unwrap()).unwrap().1;
        assert_eq!(service.templates[&service.version].image, of.templates[&of.version].image);
        let TaskSpec { entrypoint, command, environment, user, working_dir, ports, restart, .. } = task;
        let container = &task.container;
        expected.assert_eq(&format!(
            "{made} x{replicas} {labels:?}\n\
             {entrypoint:?} {command:?} as {user:?} in {working_dir:?}\n\
             {environment:?} {:?} ports: {}\n\
             restart: {:?}, health: {:?}, tty: {}, stdin: {}, held: {}\n",
            task.labels,
            ports.len(),
            restart.condition,
            task.health,
            container.tty,
            container.stdin_open,
            container.hold,
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_the_service_but_for_what_makes_it_one() {
        check(
            request(1),
            expect![[r#"
                hello-run-baaaaa/web x1 {"gantry.run": "once"}
                Some(["/entry"]) Some(["serve"]) as Some("app") in None
                {"KEPT": "1", "LEVEL": "info"} {"gantry.run": "once", "kept": "1"} ports: 0
                restart: Never, health: Disabled, tty: false, stdin: false, held: false
            "#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_is_different() {
        let asked = RunOnceRequest {
            name: "mine".to_owned(),
            entrypoint: words(&["/bin/sh"]),
            environment: pairs(&[("LEVEL", "debug=all"), ("MORE", "")]),
            user: Some("0:0".to_owned()),
            working_dir: Some("/srv".to_owned()),
            tty: true,
            stdin: true,
            hold: true,
            keep: true,
            ..request(1)
        };
        check(
            asked,
            expect![[r#"
                mine/web x1 {"gantry.run": "keep"}
                Some(["/bin/sh"]) None as Some("0:0") in Some("/srv")
                {"KEPT": "1", "LEVEL": "debug=all", "MORE": ""} {"gantry.run": "keep", "kept": "1"} ports: 0
                restart: Never, health: Disabled, tty: true, stdin: true, held: true
            "#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_replaces_the_services_and_not_its_entrypoint() {
        let api = api().await;
        let of = |state: &State| {
            let (_, service) = state.service_named(&"mine/web".parse().unwrap()).unwrap();
            (service.spec.task.entrypoint.clone().unwrap(), service.spec.task.command.clone().unwrap())
        };
        let asked = RunOnceRequest { name: "mine".to_owned(), command: words(&["migrate"]), ..request(1) };
        run(&api, asked).await.unwrap();
        let state = api.state().await.unwrap();
        assert_eq!(of(&state), (vec!["/entry".to_owned()], vec!["migrate".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_sent_again_runs_nothing_a_second_time() {
        let api = api().await;
        let first = run(&api, request(1)).await.unwrap();
        assert_eq!(run(&api, request(1)).await.unwrap(), first);
        let (stack, _) = first.service.split_once('/').unwrap();
        // Also when what it made is gone, or what it was made from.
        for (number, stack) in [(2, stack), (3, "hello")] {
            let remove = RemoveStackRequest {
                request: wire::request_text(RequestId(number)),
                stack: stack.to_owned(),
            };
            api.remove_stack(Request::new(remove)).await.unwrap();
            assert_eq!(run(&api, request(1)).await.unwrap(), first);
        }
        let state = api.state().await.unwrap();
        assert!(state.services().all(|(_, service)| service.removing));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_run_says_why() {
        let api = api().await;
        let refused = async |asked: RunOnceRequest| {
            let status = run(&api, asked).await.unwrap_err();
            (status.code(), status.message().to_owned())
        };
        let unknown = RunOnceRequest { service: "hello/nobody".to_owned(), ..request(1) };
        assert_eq!(refused(unknown).await, (Code::NotFound, "there is no service `hello/nobody`".to_owned()));
        let taken = RunOnceRequest { name: "hello".to_owned(), ..request(2) };
        assert_eq!(
            refused(taken).await,
            (Code::AlreadyExists, "there is a stack `hello` already".to_owned())
        );
        for bad in [
            RunOnceRequest { request: String::new(), ..request(3) },
            RunOnceRequest { name: "Hello".to_owned(), ..request(4) },
            RunOnceRequest { environment: pairs(&[("A=B", "c")]), ..request(5) },
            RunOnceRequest { user: Some(String::new()), ..request(6) },
            RunOnceRequest { working_dir: Some("srv".to_owned()), ..request(7) },
        ] {
            assert_eq!(refused(bad).await.0, Code::InvalidArgument);
        }
        assert_eq!(api.state().await.unwrap().stacks().count(), 1);
    }

    #[test]
    fn a_name_is_drawn_that_is_one_whatever_the_stacks_is() {
        let drawn = |stack: &str, request| drawn(&stack.parse().unwrap(), RequestId(request)).to_string();
        assert_eq!(drawn("hello", 0), "hello-run-aaaaaa");
        assert_eq!(drawn("hello", u128::MAX), "hello-run-777777");
        assert_eq!(drawn("hello", 1 << 30), "hello-run-aaaaaa", "so many bits are used");
        let long = "a".repeat(63);
        assert_eq!(drawn(&long, 0), format!("{}-run-aaaaaa", "a".repeat(52)));
        let cut = format!("{}--{}", "a".repeat(50), "b".repeat(11));
        assert_eq!(drawn(&cut, 0), format!("{}-run-aaaaaa", "a".repeat(50)));
    }
}
