//! Time, requests, generations, and states that are rebuilt from their rows.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Desired, Digest, Mode, Name, NodeId, RequestId, Role, SpecVersion, TaskVerdict, Timestamp};
use state::{Applied, Change, Command, Declared, Done, Proposal, Rejected, Row, State};

use crate::fixture::{TOKEN, World, address_of, service_name};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn admit(name: &str) -> Command {
    admit_with(None, name)
}

fn admit_with(key: Option<[u8; 32]>, name: &str) -> Command {
    let name = name.parse().expect("a name");
    let (role, address) = (Role::Manager, address_of(NodeId(1)));
    Command::AdmitNode { name, role, address, token: Some(TOKEN), key }
}

fn ask(world: &mut World, request: u128, command: Command) -> Applied {
    let proposal =
        Proposal { at: world.now, request: Some(RequestId(request)), by: None, commands: vec![command] };
    world.propose(&proposal)
}

#[test]
fn a_repeated_request_is_answered_again_and_does_nothing() {
    let mut world = World::of("nodes n1");
    let first = ask(&mut world, 1, admit("n2"));
    assert_eq!(first.outcomes, [Ok(Done::Admitted(NodeId(2)))]);
    let rows = world.state.rows();
    // The answer is the request's, whatever is asked under its name.
    for command in [admit("n2"), admit("n3")] {
        let again = ask(&mut world, 1, command);
        assert_eq!(again.outcomes, first.outcomes);
        assert!(again.changes.is_empty());
        assert!(world.state.rows()[1..] == rows[1..]);
    }
}

#[test]
fn a_request_that_was_refused_is_refused_again_though_it_would_succeed_now() {
    let mut world = World::of("nodes n1\n service hello/web x1");
    let scale = Command::Scale { service: service_name("hello/web"), replicas: 5, expected: None };
    let refused = ask(&mut world, 1, scale.clone());
    assert_eq!(refused.outcomes, [Err(Rejected::NoService(service_name("hello/web")))]);
    world.run("deploy");
    assert_eq!(ask(&mut world, 1, scale.clone()).outcomes, refused.outcomes);
    assert!(ask(&mut world, 2, scale).outcomes[0].is_ok());
}

#[test]
fn an_answer_is_kept_for_a_day() {
    let mut world = World::of("nodes n1");
    let first = ask(&mut world, 1, admit("n2"));
    world.now = world.now.plus(DAY);
    assert_eq!(ask(&mut world, 1, admit("n2")).outcomes, first.outcomes);
    world.now = world.now.plus(Duration::from_millis(1));
    let late = ask(&mut world, 1, admit("n2"));
    assert!(matches!(late.outcomes[0], Err(Rejected::NodeNameTaken(_))), "{late:?}");
    assert_eq!(world.state.recorded(RequestId(1)).map(|recorded| &*recorded.outcomes), Some(&late.outcomes));
}

#[test]
fn old_answers_go_even_if_nobody_asks_again() {
    let mut world = World::of("nodes n1");
    for request in 0..10 {
        ask(&mut world, request, Command::SetLiveness { node: NodeId(1), ready: true });
        world.run("tick 1h");
    }
    world.run("tick 18h\n down n1");
    let kept: Vec<u128> =
        (0..10).filter(|request| world.state.recorded(RequestId(*request)).is_some()).collect();
    // The clock shows 28 hours: whatever was answered in the first four is older than a day.
    assert_eq!(kept, [4, 5, 6, 7, 8, 9]);
}

#[test]
fn cluster_time_never_goes_back() {
    let mut world = World::of("nodes n1");
    let reached = world.state.time();
    world.now = Timestamp(5);
    world.run("service hello/web x1\n deploy\n plan");
    assert_eq!(world.state.time(), reached);
    let created = world.state.task(world.task("web.1")).map(|task| task.created);
    assert_eq!(created, Some(reached), "what happens now is dated by cluster time");
}

#[test]
fn a_node_is_down_since_it_was_first_missed() {
    let mut world = World::of("nodes n1\n down n1");
    let liveness = |world: &World| world.state.node(NodeId(1)).map(|node| node.liveness);
    let first = liveness(&world);
    world.run("tick 5s\n down n1");
    assert_eq!(liveness(&world), first);
    world.run("up n1\n tick 5s\n down n1");
    assert_ne!(liveness(&world), first);
}

#[test]
fn a_token_is_good_until_it_expires() {
    let mut world = World::of("nodes n1");
    let (digest, expires) = ([3; 32], world.now.plus(Duration::from_secs(60)));
    let join = |name: &str| {
        let name: Name = name.parse().expect("a name");
        let (role, address) = (Role::Worker, address_of(NodeId(1)));
        Command::AdmitNode { name, role, address, token: Some(digest), key: None }
    };
    world.must(Command::PutToken { digest, role: Role::Worker, expires });
    world.must(join("n2"));
    world.run("tick 60s");
    assert_eq!(world.apply(vec![join("n3")]), [Err(Rejected::BadToken)]);
}

#[test]
fn a_node_id_is_never_given_twice() {
    let mut world = World::of("nodes n1 n2");
    let refused = world.apply(vec![admit("n2"), admit("n3")]);
    assert_eq!(refused[1], Ok(Done::Admitted(NodeId(3))));
    let restored = State::from_rows(world.state.rows());
    world.state = restored;
    assert_eq!(world.must(admit("n4")), Done::Admitted(NodeId(4)));
}

#[test]
fn a_machine_that_asks_again_is_given_the_identity_that_it_has() {
    let mut world = World::of("nodes n1");
    let first = world.must(admit_with(Some([5; 32]), "n2"));
    assert_eq!(first, Done::Admitted(NodeId(2)));
    let rows = world.state.rows();
    assert_eq!(world.must(admit_with(Some([5; 32]), "n2")), first);
    assert!(world.state.rows()[1..] == rows[1..], "nobody is admitted a second time");
}

#[test]
fn nobody_else_is_given_the_identity_of_a_machine() {
    let mut world = World::of("nodes n1");
    world.must(Command::PutToken { digest: [3; 32], role: Role::Worker, expires: Timestamp(u64::MAX) });
    world.must(admit_with(Some([5; 32]), "n2"));
    world.must(admit("n3"));
    let (name, role, address) = ("n2".parse().expect("a name"), Role::Worker, address_of(NodeId(1)));
    let worker = Command::AdmitNode { name, role, address, token: Some([3; 32]), key: Some([5; 32]) };
    // Another key, none, another role; and none where there was none.
    for other in [admit_with(Some([6; 32]), "n2"), admit("n2"), worker, admit("n3")] {
        let outcome = world.apply(vec![other]).remove(0);
        assert!(matches!(outcome, Err(Rejected::NodeNameTaken(_))), "{outcome:?}");
    }
}

#[test]
fn a_machine_that_has_lived_under_an_identity_is_not_given_it_again() {
    // Its disk is gone, or it would not ask: a manager that came back empty under its old id could vote twice.
    let mut world = World::of("nodes n1");
    world.must(admit_with(Some([5; 32]), "n2"));
    world.must(Command::SetLiveness { node: NodeId(2), ready: true });
    let outcome = world.apply(vec![admit_with(Some([5; 32]), "n2")]).remove(0);
    assert!(matches!(outcome, Err(Rejected::NodeNameTaken(_))), "{outcome:?}");
}

#[test]
fn an_id_is_known_to_be_given_out_though_its_node_is_gone() {
    let world = World::of("nodes n1 n2");
    // No command removes a node yet, so the rows of a real state are changed.
    let left = world.state.rows().into_iter().filter(|row| !matches!(row, Row::Node(NodeId(2), _)));
    let state = State::from_rows(left);
    assert!(state.node(NodeId(2)).is_none());
    let known: Vec<bool> = (0..4).map(|id| state.has_admitted(NodeId(id))).collect();
    assert_eq!(known, [true, true, true, false]);
}

#[test]
fn a_compare_and_set_succeeds_once_a_generation() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy");
    let web = world.service("web");
    let generation = world.state.service(web).map(|service| service.generation);
    let scale =
        |replicas| Command::Scale { service: service_name("hello/web"), replicas, expected: generation };
    let outcomes = world.apply(vec![scale(2), scale(3)]);
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(Rejected::Changed { .. })), "{outcomes:?}");
    assert_eq!(
        world.state.service(web).map(|service| service.spec.mode),
        Some(Mode::Replicated { replicas: 2 })
    );
}

#[test]
fn the_last_word_on_a_task_is_not_taken_back_when_it_is_told_to_stop() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n plan");
    let task = world.task("web.1");
    world.must(Command::Conclude { task, verdict: TaskVerdict::Lost });
    world.must(Command::SetDesired { task, desired: Desired::Stopped });
    assert_eq!(world.state.task(task).and_then(|task| task.verdict), Some(TaskVerdict::Lost));
}

#[test]
fn a_deploy_that_changes_nothing_keeps_the_generation() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n settle");
    let stack: Name = "hello".parse().expect("a name");
    let generation = world.state.stack(&stack).map(|stack| stack.generation);
    let rows = world.state.rows();
    world.run("deploy");
    assert_eq!(world.state.stack(&stack).map(|stack| stack.generation), generation);
    assert!(world.state.rows()[1..] == rows[1..]);
}

#[test]
fn a_change_says_what_it_did_though_it_is_asked_for_again() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy");
    let web = world.state.service(world.service("web")).expect("it was just found");
    let image = world.state.image_named(&web.spec.task.image).expect("it was deployed");
    let mut spec = web.spec.clone();
    spec.mode = Mode::Replicated { replicas: 2 };
    let services =
        BTreeMap::from([("web".parse().expect("a name"), Declared { spec, image, keep_replicas: false })]);
    let deploy = Command::Deploy { stack: "hello".parse().expect("a name"), services, expected: None };
    let scale = Command::Scale { service: service_name("hello/web"), replicas: 3, expected: None };
    for (request, change) in [(1, deploy), (2, scale)] {
        let first = ask(&mut world, request, change.clone()).outcomes;
        assert!(matches!(first[..], [Ok(Done::At(_))]), "{first:?}");
        assert_eq!(ask(&mut world, request, change.clone()).outcomes, first);
        // As a request of its own it finds that it is so already.
        assert_eq!(ask(&mut world, request + 10, change).outcomes, [Ok(Done::Unchanged)]);
    }
}

#[test]
fn only_the_task_template_makes_a_version() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy");
    let web = world.service("web");
    let version = |world: &World| world.state.service(web).map(|service| service.version);
    world.run("service hello/web x2 label=blue\n deploy\n scale web 3");
    assert_eq!(version(&world), Some(SpecVersion(1)));
    world.run("service hello/web x2 label=blue command=two\n deploy");
    assert_eq!(version(&world), Some(SpecVersion(2)));
    // What was there before and is kept is what it was; what comes next is new all the same.
    world.run("service hello/web x2\n deploy");
    assert_eq!(version(&world), Some(SpecVersion(1)));
    world.run("service hello/web x2 command=three\n deploy");
    assert_eq!(version(&world), Some(SpecVersion(3)));
}

/// A state in which something of everything has happened and some of it is over.
fn eventful() -> World {
    World::of(
        "nodes n1 n2 n3
         image nginx on n1 n2
         service hello/web x4 port=80 cpu=1 image=nginx
         service other/job x2 restart=on-failure
         deploy
         settle
         report web.1 failing
         plan
         tick 10s
         settle
         report job.1 completed
         down n2
         settle
         service hello/web x3 port=80 command=two
         deploy
         plan
         untag nginx
         rm other
         plan
         agents",
    )
}

#[test]
fn a_state_can_be_rebuilt_from_its_rows() {
    let world = eventful();
    let restored = State::from_rows(world.state.rows());
    assert!(restored.rows() == world.state.rows());
    assert_eq!(restored.unplaced().collect::<Vec<_>>(), world.state.unplaced().collect::<Vec<_>>());
    for (id, _) in world.state.nodes() {
        let tasks = |state: &State| state.tasks_on(id).map(|(task, _)| task).collect::<Vec<_>>();
        assert_eq!(tasks(&restored), tasks(&world.state));
        assert_eq!(restored.occupancy(id), world.state.occupancy(id));
    }
}

#[test]
fn a_rebuilt_state_equals_the_one_it_was_made_from() {
    let mut world = eventful();
    assert!(State::from_rows(world.state.rows()) == world.state);
    // Also when a node has become empty.
    world.run("up n2\n rm hello\n settle");
    assert_eq!(world.state.tasks().count(), 0);
    assert!(State::from_rows(world.state.rows()) == world.state);
}

#[test]
fn a_clone_is_not_disturbed_by_what_happens_later() {
    let mut world = eventful();
    let (clone, rows) = (world.state.clone(), world.state.rows());
    world.run("up n2\n rm hello\n settle");
    assert!(clone.rows() == rows);
    assert!(world.state.rows() != rows);
}

#[test]
fn whoever_drops_the_last_use_of_an_image_says_so() {
    // The nodes that hold the image learn from the change that they may drop it.
    let first = Digest([1; 32]);
    let mut world = World::of(
        "nodes n1 n2
         image app on n1 n2
         service hello/web x1
         deploy
         image app on n1 n2
         rm hello",
    );
    assert!(world.state.image_is_wanted(first));
    let web = world.service("web");
    let drop = Proposal {
        at: world.now,
        request: None,
        by: None,
        commands: vec![Command::DropService { service: web }],
    };
    let applied = world.propose(&drop);
    assert!(!world.state.image_is_wanted(first));
    assert!(applied.changes.contains(&Change::Image(first)), "{:?}", applied.changes);
}

#[test]
fn a_deploy_of_a_name_that_has_moved_on_gets_what_it_stands_for_now() {
    // Its caller looked the name up, then an import gave it to other content, and nodes began to drop the old one.
    let mut world = World::of(
        "nodes n1 n2
         image other on n1 n2
         service hello/web x0 image=other
         deploy
         image app on n1 n2
         image app on n1 n2",
    );
    let web = world.service("web");
    let mut spec = world.state.service(web).expect("it was just found").spec.clone();
    spec.task.image = "app".parse().expect("the name of an image");
    let (before, now) = (Digest([2; 32]), world.state.image_named(&spec.task.image).expect("it is there"));
    assert!(before != now && !world.state.image_is_wanted(before));
    let services = BTreeMap::from([(
        "web".parse().expect("a name"),
        Declared { spec, image: before, keep_replicas: false },
    )]);
    world.must(Command::Deploy { stack: "hello".parse().expect("a name"), services, expected: None });
    let service = world.state.service(web).expect("it was deployed");
    assert_eq!(service.templates[&service.version].image, now);
}

#[test]
fn whoever_forgets_the_last_version_made_from_an_image_says_so() {
    let first = Digest([1; 32]);
    let mut world = World::of(
        "nodes n1 n2
         image app on n1 n2
         service hello/web x0
         deploy
         image app on n1 n2",
    );
    let name: Name = "web".parse().expect("a name");
    let mut spec = world.state.service(world.service("web")).expect("it was just found").spec.clone();
    let image = world.state.image_named(&spec.task.image).expect("it was just imported");
    for version in 2.. {
        spec.task.command = Some(vec![format!("{version}")]);
        let services =
            BTreeMap::from([(name.clone(), Declared { spec: spec.clone(), image, keep_replicas: false })]);
        let stack: Name = "hello".parse().expect("a name");
        let deploy = Command::Deploy { stack, services, expected: None };
        let proposal = Proposal { at: world.now, request: None, by: None, commands: vec![deploy] };
        let applied = world.propose(&proposal);
        if !world.state.image_is_wanted(first) {
            assert!(applied.changes.contains(&Change::Image(first)), "{:?}", applied.changes);
            return;
        }
        assert!(version < 20, "the first version is kept for ever");
    }
}
