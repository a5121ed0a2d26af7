//! Users: each has a stack of its own, changes it as it pleases, and remembers what it was told.
//!
//! Calls go to the methods of the real API, at whichever manager answers. A call without an answer is
//! repeated with the same request id; now and then a user gives up instead, and from then on knows less.

mod belief;
mod menu;
mod operator;

use std::time::Duration;

use control::api::Api;
use futures::future::BoxFuture;
use model::{Name, NodeId, RequestId, ServiceSpec};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};
use wire::proto::api::cluster_server::Cluster as _;
use wire::proto::api::{
    DeployRequest, JobRequest, ListRequest, RemoveStackRequest, RestartRequest, ScaleRequest, ScaleTo,
    ServiceList, SteerRequest, UndoRequest,
};

use crate::check::Check;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::net::{Net, Port, USERS};
use crate::trace::Trace;

pub(crate) use belief::{Belief, Op, Turn};
pub(crate) use menu::Importer;
pub(crate) use operator::Operator;

/// How long a user waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a user keeps asking. Faults last for seconds, so a cluster that does not answer for so long is
/// broken.
const PERSISTENCE: Duration = Duration::from_secs(240);
/// After this long, nothing of a call that was given up is on its way any more: a manager waits for a
/// quorum for 10 seconds to read and for another 10 to write.
const FORGOTTEN: Duration = Duration::from_secs(25);

/// One user.
#[derive(Debug)]
pub(crate) struct User {
    net: Net,
    check: Check,
    trace: Trace,
    dice: Dice,
    managers: Vec<NodeId>,
    /// The manager that answered last.
    favourite: NodeId,
    belief: Belief,
}

/// What became of a call.
enum Answer<T> {
    Done(T),
    /// It had no effect and never will.
    Refused(String),
    Unknown,
}

impl User {
    pub(crate) fn new(seed: u64, number: u64, cluster: &Cluster) -> Self {
        let stack: Name = format!("stack-{number}").parse().expect("that is a DNS label");
        let dice = Dice::new(seed, &format!("user {number}"));
        let managers = cluster.managers();
        Self {
            net: cluster.net.clone(),
            check: cluster.check.clone(),
            trace: cluster.trace.clone(),
            favourite: dice.pick(&managers),
            dice,
            managers,
            belief: Belief::new(stack),
        }
    }

    /// Changes the stack until `until`, and finishes what was begun by then.
    pub(crate) async fn run(mut self, until: Instant) -> Belief {
        while Instant::now() < until && !self.trace.is_broken() {
            sleep(self.dice.millis(50, 3000)).await;
            let op = menu::choose(&self.dice, &self.belief);
            self.perform(op).await;
            if self.dice.chance(60) {
                self.read().await;
            }
        }
        self.read().await;
        self.belief
    }

    async fn perform(&mut self, op: Op) {
        let request = RequestId(self.dice.id());
        let persistent = self.dice.chance(92);
        let what = format!("{op} of {}", self.belief.stack());
        self.trace.line(format_args!("user: {what}"));
        let deadline = Instant::now() + PERSISTENCE;
        loop {
            match self.change(&op, request).await {
                Answer::Done(()) => {
                    self.trace.line(format_args!("user: {what} is done"));
                    self.trace.count("acknowledged");
                    self.check.acknowledged(request, &what);
                    if let Err(contradiction) = self.belief.took_effect(&op) {
                        self.trace.broken(contradiction);
                    }
                    return;
                }
                Answer::Refused(reason) => {
                    self.trace.line(format_args!("user: {what} is refused: {reason}"));
                    if let Err(contradiction) = self.belief.was_refused(&op) {
                        self.trace.broken(contradiction);
                    }
                    return;
                }
                Answer::Unknown if !persistent => {
                    self.trace.line(format_args!("user: {what} is given up"));
                    self.trace.count("given up");
                    self.belief.is_unknown(&op);
                    sleep(FORGOTTEN).await;
                    return;
                }
                Answer::Unknown if Instant::now() > deadline => {
                    self.trace.broken(format_args!("{what} was not answered within {PERSISTENCE:?}"));
                    self.belief.is_unknown(&op);
                    return;
                }
                Answer::Unknown => self.elsewhere().await,
            }
        }
    }

    /// Reads the stack's services, and compares them with what has to be there: nobody else changes them.
    async fn read(&mut self) {
        let deadline = Instant::now() + PERSISTENCE;
        loop {
            let filter = self.belief.stack().to_string();
            let asked = self.call(move |api| Box::pin(list(api, filter)));
            let found = match asked.await {
                Answer::Done(list) => self.belief.reads_as(&list),
                Answer::Refused(_) => self.belief.reads_as(&ServiceList::default()),
                Answer::Unknown if Instant::now() > deadline || self.trace.is_broken() => return,
                Answer::Unknown => {
                    self.elsewhere().await;
                    continue;
                }
            };
            if let Err(contradiction) = found {
                self.trace.broken(contradiction);
            }
            return;
        }
    }

    async fn elsewhere(&mut self) {
        self.favourite = self.dice.pick(&self.managers);
        sleep(self.dice.millis(50, 400)).await;
    }

    async fn change(&self, op: &Op, request: RequestId) -> Answer<()> {
        let stack = self.belief.stack().to_string();
        let request = wire::request_text(request);
        match op.clone() {
            Op::Deploy(services) => {
                let services =
                    services.iter().map(|(name, spec)| (name.to_string(), message(spec))).collect();
                let keep_replicas = Vec::new();
                let deploy = DeployRequest { request, stack, services, expected: None, keep_replicas };
                self.call(move |api| {
                    Box::pin(async move { api.deploy(Request::new(deploy)).await.map(drop) })
                })
                .await
            }
            Op::Scale { service, replicas } => {
                let to = ScaleTo { service: format!("{stack}/{service}"), replicas };
                let scale = ScaleRequest { request, services: vec![to] };
                self.call(move |api| Box::pin(async move { api.scale(Request::new(scale)).await.map(drop) }))
                    .await
            }
            Op::Turn { service, turn } => {
                let service = format!("{stack}/{service}");
                self.call(move |api| {
                    Box::pin(async move {
                        match turn {
                            Turn::Undo => {
                                api.undo(Request::new(UndoRequest { request, service, to: None })).await
                            }
                            Turn::RunJob => api.run_job(Request::new(JobRequest { request, service })).await,
                            Turn::StopJob => {
                                api.stop_job(Request::new(JobRequest { request, service })).await
                            }
                            Turn::Restart => {
                                api.restart(Request::new(RestartRequest { request, service })).await
                            }
                            Turn::Steer(how) => {
                                let how = how.to_owned();
                                api.steer(Request::new(SteerRequest { request, service, how })).await
                            }
                        }
                        .map(drop)
                    })
                })
                .await
            }
            Op::Remove => {
                let remove = RemoveStackRequest { request, stack };
                self.call(move |api| {
                    Box::pin(async move { api.remove_stack(Request::new(remove)).await.map(drop) })
                })
                .await
            }
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        method: impl FnOnce(Api) -> BoxFuture<'static, Result<T, Status>> + Send + 'static,
    ) -> Answer<T> {
        let asked = self.net.ask(USERS, self.favourite, PATIENCE, move |port: Port| method(port.api));
        match asked.await {
            Ok(Ok(done)) => Answer::Done(done),
            Ok(Err(status)) => match status.code() {
                Code::Unavailable => Answer::Unknown,
                Code::NotFound | Code::Aborted | Code::FailedPrecondition => {
                    Answer::Refused(status.message().to_owned())
                }
                code => {
                    self.trace.broken(format_args!(
                        "a correct call is answered with {code:?}: {}",
                        status.message()
                    ));
                    Answer::Refused(status.message().to_owned())
                }
            },
            Err(_lost) => Answer::Unknown,
        }
    }
}

async fn list(api: Api, filter: String) -> Result<ServiceList, Status> {
    let request = ListRequest { filter, all: false };
    Ok(api.list_services(Request::new(request)).await?.into_inner())
}

fn message(spec: &ServiceSpec) -> wire::proto::model::ServiceSpec {
    spec.into()
}
