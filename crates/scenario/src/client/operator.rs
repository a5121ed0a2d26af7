//! Whoever looks after the nodes: drains them, pauses them, has them take tasks again and says in which zone they are.

use std::time::Duration;

use futures::future::BoxFuture;
use model::{NodeId, RequestId};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};
use wire::proto::api::cluster_server::Cluster as _;
use wire::proto::api::{PlanRebalanceRequest, RebalanceRequest, UpdateNodeRequest};
use wire::proto::model::Availability;

use crate::check::Check;
use crate::client::PATIENCE;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::net::{Net, Port, USERS};
use crate::trace::Trace;

/// Whoever has asked so often for something that is not needed gives up.
const ATTEMPTS: u32 = 10;

#[derive(Debug)]
pub(crate) struct Operator {
    net: Net,
    check: Check,
    trace: Trace,
    dice: Dice,
    nodes: Vec<NodeId>,
    managers: Vec<NodeId>,
}

impl Operator {
    pub(crate) fn new(seed: u64, cluster: &Cluster) -> Self {
        Self {
            net: cluster.net.clone(),
            check: cluster.check.clone(),
            trace: cluster.trace.clone(),
            dice: Dice::new(seed, "operator"),
            nodes: cluster.nodes(),
            managers: cluster.managers(),
        }
    }

    /// Changes a node now and then until `until`, and then leaves most of them as they were: one in a while stays drained, as
    /// long as another takes tasks.
    pub(crate) async fn run(self, until: Instant) {
        while Instant::now() < until && !self.trace.is_broken() {
            sleep(self.dice.millis(3_000, 15_000)).await;
            if self.dice.chance(20) {
                self.rebalance().await;
                continue;
            }
            let node = self.dice.pick(&self.nodes);
            self.change(node, self.choose()).await;
        }
        let drained = self.dice.chance(20).then(|| self.dice.pick(&self.nodes));
        for node in &self.nodes {
            let wanted = if drained == Some(*node) { Availability::Drain } else { Availability::Active };
            self.change(*node, UpdateNodeRequest { availability: wanted.into(), ..<_>::default() }).await;
        }
    }

    fn choose(&self) -> UpdateNodeRequest {
        let to = |availability: Availability, deadline: Option<Duration>| UpdateNodeRequest {
            availability: availability.into(),
            deadline: deadline.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
            ..UpdateNodeRequest::default()
        };
        match self.dice.below(6) {
            0 => to(Availability::Drain, None),
            1 => to(Availability::Drain, Some(self.dice.millis(0, 8_000))),
            2 => to(Availability::Pause, None),
            3 | 4 => to(Availability::Active, None),
            _ => {
                let zone = self.dice.pick(&["z0", "z1"]);
                let set_labels = [("zone".to_owned(), zone.to_owned())].into();
                UpdateNodeRequest { set_labels, ..UpdateNodeRequest::default() }
            }
        }
    }

    /// Has moved what the leader finds uneven; whoever is not answered for long does without.
    async fn rebalance(&self) {
        let asked = self.insist(|port: Port| {
            Box::pin(async move { port.api.plan_rebalance(Request::new(PlanRebalanceRequest {})).await })
        });
        let Some(plan) = asked.await else { return };
        let tasks: Vec<_> = plan.moves.into_iter().filter_map(|found| found.task).collect();
        if tasks.is_empty() {
            self.trace.count("nothing to rebalance");
            return;
        }
        let rebalance = RebalanceRequest { request: wire::request_text(RequestId(self.dice.id())), tasks };
        self.trace.line(format_args!("operator: {} tasks are to move", rebalance.tasks.len()));
        let asked = self.insist(move |port: Port| {
            let rebalance = rebalance.clone();
            Box::pin(async move { port.api.rebalance(Request::new(rebalance)).await })
        });
        if asked.await.is_some_and(|reply| reply.changed) {
            self.trace.count("rebalanced");
        }
    }

    /// Asks one manager after the other until one answers.
    async fn insist<T: Send + 'static>(
        &self,
        ask: impl Fn(Port) -> BoxFuture<'static, Result<Response<T>, Status>> + Clone + Send + 'static,
    ) -> Option<T> {
        for _ in 0..ATTEMPTS {
            let asked = self.net.ask(USERS, self.dice.pick(&self.managers), PATIENCE, ask.clone());
            if let Ok(Ok(answer)) = asked.await {
                return Some(answer.into_inner());
            }
            sleep(self.dice.millis(50, 300)).await;
        }
        None
    }

    /// Asks until there is an answer.
    async fn change(&self, node: NodeId, update: UpdateNodeRequest) {
        let request = RequestId(self.dice.id());
        let what = format!("{node} is to be {update:?}");
        let update = UpdateNodeRequest {
            request: wire::request_text(request),
            node: format!("node-{}", node.0),
            ..update
        };
        self.trace.line(format_args!("operator: {what}"));
        while !self.trace.is_broken() {
            let update = update.clone();
            let asked = self.net.ask(USERS, self.dice.pick(&self.managers), PATIENCE, move |port: Port| {
                Box::pin(async move { port.api.update_node(Request::new(update)).await })
            });
            match asked.await {
                Ok(Ok(_)) => {
                    self.trace.count("node changed");
                    self.check.acknowledged(request, &what);
                    return;
                }
                Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {}
                Ok(Err(status)) => {
                    self.trace.broken(format_args!("{what} is answered with {status:?}"));
                    return;
                }
                Err(_lost) => {}
            }
            sleep(self.dice.millis(50, 300)).await;
        }
    }
}
