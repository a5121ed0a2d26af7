//! How far the layers of an image are.

use model::Bytes;
use wire::proto::model::{LayerProgress, LayerState};

use crate::render::images::short;
use crate::render::plain;

/// `0123456789ab  downloading  12 MiB of 34 MiB`.
pub(crate) fn line(layer: &LayerProgress) -> String {
    let (name, state) = (short(&layer.digest), layer.state());
    let (done, total) = (Bytes(layer.done), Bytes(layer.total));
    let how_far = match state {
        LayerState::Downloading | LayerState::Uploading => format!("{done} of {total}"),
        LayerState::Unspecified | LayerState::Waiting | LayerState::Done | LayerState::Exists => {
            total.to_string()
        }
    };
    plain(&format!("{name}  {}  {how_far}", word(state)))
}

/// A line for a pipe, where only a change is news; nothing of a layer that waits.
pub(crate) fn change(layer: &LayerProgress) -> Option<String> {
    match layer.state() {
        LayerState::Unspecified | LayerState::Waiting => None,
        state @ (LayerState::Downloading | LayerState::Uploading | LayerState::Done | LayerState::Exists) => {
            Some(plain(&format!("{}: {} ({})", short(&layer.digest), word(state), Bytes(layer.total))))
        }
    }
}

fn word(state: LayerState) -> &'static str {
    match state {
        LayerState::Unspecified | LayerState::Waiting => "waiting",
        LayerState::Downloading => "downloading",
        LayerState::Uploading => "uploading",
        LayerState::Done => "done",
        LayerState::Exists => "already there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_shown_as_far_as_it_is() {
        let layer = |state: LayerState| LayerProgress {
            digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            total: 34 << 20,
            done: 12 << 20,
            state: state.into(),
        };
        let downloading = layer(LayerState::Downloading);
        assert_eq!(line(&downloading), "0123456789ab  downloading  12 MiB of 34 MiB");
        assert_eq!(change(&downloading).as_deref(), Some("0123456789ab: downloading (34 MiB)"));
        assert_eq!(line(&layer(LayerState::Exists)), "0123456789ab  already there  34 MiB");
        assert_eq!(change(&layer(LayerState::Waiting)), None);
    }
}
