//! Whose data directory it is. A directory belongs to one node of one cluster for ever: under another identity, or with
//! its contents gone, the same node could vote twice.

use std::sync::Arc;

use bytes::Bytes;
use model::{ClusterId, NodeId};

use crate::config::Config;
use crate::engine::{Batch, Engine};
use crate::message;
use crate::record::{self, Damage};
use crate::store::StartError;

/// The layout that this version reads and writes.
const FORMAT: u32 = 1;

pub(crate) fn cluster_bytes(cluster: ClusterId) -> Bytes {
    Bytes::copy_from_slice(&cluster.0.to_be_bytes())
}

/// Checks that the engine holds this node's data, and writes the identity into an empty one if it may be empty.
pub(crate) async fn claim(engine: &Arc<dyn Engine>, config: &Config) -> Result<(), StartError> {
    let ours =
        message::Identity { format: FORMAT, cluster: cluster_bytes(config.cluster), node: config.node.0 };
    if let Some(found) = record::get::<message::Identity>(&**engine, record::IDENTITY)? {
        return check(found, ours);
    }
    if !engine.scan(&[], &[u8::MAX], 1).map_err(Damage::from)?.is_empty() {
        return Err(Damage::NoIdentity.into());
    }
    if !config.first_start {
        return Err(StartError::Emptied { node: config.node });
    }
    let mut batch = Batch::new();
    record::put(&mut batch, record::IDENTITY, &ours);
    engine.write(batch).map_err(Damage::from)?;
    engine.sync().await.map_err(Damage::from)?;
    Ok(())
}

fn check(found: message::Identity, ours: message::Identity) -> Result<(), StartError> {
    if found.format != ours.format {
        return Err(StartError::Format { found: found.format, known: ours.format });
    }
    if found != ours {
        return Err(StartError::Foreign { owner: NodeId(found.node), node: NodeId(ours.node) });
    }
    Ok(())
}
