//! What users are answered by a manager that needs no others.

mod pulls;

use futures::StreamExt as _;
use identity::{CaCertificate, Credentials, KeyPair, Subject};
use model::{NodeId, RequestId, Role};
use tonic::{Code, Request, Status};
use wire::proto::api::cluster_server::Cluster as _;
use wire::proto::api::{
    ChangeReply, ConvergeRequest, CreateTokenRequest, JoinRequest, RemoveStackRequest, ScaleRequest, ScaleTo,
};

use crate::Control;
use crate::alone::{self, NOW, deployment, service};
use crate::api::Api;

async fn api() -> Api {
    Control::new(alone::manager().await).api()
}

fn request(number: u128) -> String {
    wire::request_text(RequestId(number))
}

async fn deploy(api: &Api, number: u128, replicas: u32) -> Result<ChangeReply, Status> {
    let deployment = deployment(&request(number), &service(replicas));
    Ok(api.deploy(Request::new(deployment)).await?.into_inner())
}

async fn scale(api: &Api, number: u128, replicas: u32) -> Result<ChangeReply, Status> {
    let services = vec![ScaleTo { service: "hello/web".to_owned(), replicas }];
    Ok(api.scale(Request::new(ScaleRequest { request: request(number), services })).await?.into_inner())
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_sent_again_is_answered_as_the_first_time() {
    let api = api().await;
    let first = deploy(&api, 1, 2).await.unwrap();
    assert!(first.changed);
    assert_eq!(deploy(&api, 1, 2).await.unwrap(), first);
    let scaled = scale(&api, 2, 3).await.unwrap();
    assert!(scaled.changed && scaled.generation > first.generation);
    assert_eq!(scale(&api, 2, 3).await.unwrap(), scaled);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_finds_all_as_it_should_be_says_so() {
    let api = api().await;
    let first = deploy(&api, 1, 2).await.unwrap();
    let unchanged = ChangeReply { changed: false, ..first };
    assert_eq!(deploy(&api, 2, 2).await.unwrap(), unchanged);
    assert_eq!(scale(&api, 3, 2).await.unwrap(), unchanged);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_removed_meanwhile_is_told_so() {
    let api = api().await;
    let targets = vec!["hello".to_owned()];
    let deployed = deploy(&api, 1, 2).await.unwrap();
    let goal = ConvergeRequest { targets, gone: false, generation: deployed.generation };
    let mut progress = api.converge(Request::new(goal)).await.unwrap().into_inner();
    assert!(!progress.next().await.unwrap().unwrap().converged);
    let remove = RemoveStackRequest { request: request(2), stack: "hello".to_owned() };
    api.remove_stack(Request::new(remove)).await.unwrap();
    let told = async {
        loop {
            if let Err(status) = progress.next().await.expect("it does not end without a word") {
                return status;
            }
        }
    };
    let status = told.await;
    assert_eq!((status.code(), status.message()), (Code::Aborted, "`hello` was removed meanwhile"));
    assert!(progress.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_too_large_for_the_log_is_refused_with_its_size() {
    let api = api().await;
    let mut large = service(1);
    large.task.environment.insert("LARGE".to_owned(), "x".repeat(3 << 20));
    let refused = api.deploy(Request::new(deployment("", &large))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // Its own size is 3 MiB and what is said around it.
    for size in ["3145", "2097152"] {
        assert!(refused.message().contains(size), "{}", refused.message());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_more_replicas_than_a_service_may_have() {
    let api = api().await;
    let many = model::MAX_REPLICAS + 1;
    deploy(&api, 1, 1).await.unwrap();
    for refused in [deploy(&api, 2, many).await.unwrap_err(), scale(&api, 3, many).await.unwrap_err()] {
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), format!("`hello/web={many}`: a service has 100000 replicas at most"));
    }
}

async fn token(api: &Api, role: &str) -> String {
    let asked = CreateTokenRequest { role: role.to_owned(), valid_seconds: 60 };
    api.create_token(Request::new(asked)).await.expect("a token").into_inner().token
}

fn join(token: &str, name: &str, key: &KeyPair) -> Request<JoinRequest> {
    Request::new(JoinRequest {
        token: token.to_owned(),
        name: name.to_owned(),
        address: "192.0.2.3:7000".to_owned(),
        public_key: key.public_key_der(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_has_not_heard_that_it_was_admitted_is_told_again() {
    let api = api().await;
    let (token, key) = (token(&api, "manager").await, KeyPair::generate().unwrap());
    let lost = api.join(join(&token, "n3", &key)).await.unwrap().into_inner();
    let heard = api.join(join(&token, "n3", &key)).await.unwrap().into_inner();
    assert_eq!((heard.node, &heard.role), (lost.node, &lost.role));
    let authority = CaCertificate::from_pem(&heard.authority_pem).unwrap();
    let credentials = Credentials::new(authority, &heard.certificate_pem, &key, NOW).unwrap();
    assert_eq!(credentials.subject(), &Subject::Node { id: NodeId(3), role: Some(Role::Manager) });
    // The name is another machine's now.
    let other = KeyPair::generate().unwrap();
    let refused = api.join(join(&token, "n3", &other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_key_nobody_would_sign_takes_no_name() {
    let api = api().await;
    let (token, key) = (token(&api, "worker").await, KeyPair::generate().unwrap());
    let mut broken = join(&token, "n3", &key);
    broken.get_mut().public_key.pop();
    assert_eq!(api.join(broken).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(api.join(join(&token, "n3", &key)).await.unwrap().into_inner().node, 3);
}
