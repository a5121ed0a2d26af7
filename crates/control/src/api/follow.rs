//! A view of the state, sent at once and again whenever it has become another one.

use model::Timestamp;
use state::State;
use store::{Store, Watch};
use tonic::Status;

use crate::WallClock;
use crate::api::{Answers, Api};

/// What there is to see.
pub(super) enum Look<T> {
    /// There will be more.
    Now(T),
    /// Nothing comes after this.
    Last(Result<T, Status>),
}

struct Follow<T, F> {
    store: Store,
    watch: Watch,
    clock: WallClock,
    /// What is seen in an earlier state is not told.
    index: u64,
    view: F,
    told: Option<T>,
    is_over: bool,
}

/// Looks at the state from log index `index` on, until the last look.
pub(super) fn follow<T, F>(api: &Api, index: u64, view: F) -> Answers<T>
where
    T: Clone + PartialEq + Send + 'static,
    F: FnMut(&State, Timestamp) -> Look<T> + Send + 'static,
{
    let (store, clock) = (api.parts.store.clone(), api.parts.clock.clone());
    let watch = store.watch();
    let follow = Follow { store, watch, clock, index, view, told: None, is_over: false };
    Box::pin(futures::stream::unfold(follow, |mut follow| async move {
        let told = follow.next().await?;
        Some((told, follow))
    }))
}

impl<T: Clone + PartialEq, F: FnMut(&State, Timestamp) -> Look<T>> Follow<T, F> {
    async fn next(&mut self) -> Option<Result<T, Status>> {
        if self.is_over {
            return None;
        }
        loop {
            let state = self.store.state();
            if state.applied().0 >= self.index {
                match (self.view)(&state, self.clock.now(&state)) {
                    Look::Last(last) => {
                        self.is_over = true;
                        return Some(last);
                    }
                    Look::Now(now) if self.told.as_ref() != Some(&now) => {
                        self.told = Some(now.clone());
                        return Some(Ok(now));
                    }
                    Look::Now(_) => {}
                }
            }
            self.watch.next().await;
        }
    }
}
