//! Raft's messages between managers.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use model::NodeId;
use store::{RaftRequest, Transport, TransportError};

use crate::net::{Lost, Net};

/// One manager's connections to the others.
#[derive(Clone, Debug)]
pub(crate) struct RaftWire {
    pub(crate) net: Net,
    pub(crate) node: NodeId,
}

#[derive(Debug, thiserror::Error)]
#[error("the connection was refused or reset")]
struct Reset;

fn failed(node: NodeId, lost: Lost, after: Duration) -> TransportError {
    match lost {
        Lost::Silence => TransportError::TimedOut { node, after },
        Lost::Refused => TransportError::Unreachable { node, source: Box::new(Reset) },
    }
}

impl Transport for RaftWire {
    fn call(
        &self,
        target: NodeId,
        request: RaftRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let Self { net, node } = self.clone();
        Box::pin(async move {
            let handled = net.ask(node, target, deadline, |port| {
                Box::pin(async move { port.store.handle(request).await })
            });
            match handled.await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(TransportError::Refused { node: target, reason: error.to_string() }),
                Err(lost) => Err(failed(target, lost, deadline)),
            }
        })
    }

    fn snapshot(
        &self,
        target: NodeId,
        header: Vec<u8>,
        records: BoxStream<'static, Vec<u8>>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let Self { net, node } = self.clone();
        let cut_off = net.cuts_off();
        let trace = net.shared.trace.clone();
        Box::pin(async move {
            let records = match cut_off {
                None => records.map(Ok).boxed(),
                Some(after) => {
                    let cut = TransportError::Unreachable { node: target, source: Box::new(Reset) };
                    records.take(after).map(Ok).chain(stream::iter([Err(cut)])).boxed()
                }
            };
            let handled = net.ask(node, target, deadline, |port| {
                Box::pin(async move { port.store.handle_snapshot(header, records).await })
            });
            match handled.await {
                Ok(Ok(answer)) => {
                    trace.line(format_args!("{target} has a snapshot of {node}"));
                    trace.count("snapshot sent");
                    Ok(answer)
                }
                Ok(Err(error)) => Err(TransportError::Refused { node: target, reason: error.to_string() }),
                Err(lost) => Err(failed(target, lost, deadline)),
            }
        })
    }
}

impl Net {
    /// After how many records a snapshot that is sent now is cut off, if it is.
    fn cuts_off(&self) -> Option<usize> {
        let loss = self.links().loss;
        self.shared.dice.chance(loss).then(|| usize::try_from(self.shared.dice.below(8)).unwrap_or_default())
    }
}
