//! The queue between sources and the one writer.

use tokio::sync::{mpsc, oneshot};

use super::{Fragment, Verdict};

/// Offers that wait for the writer. It drains them all at once, so this only has to exceed the
/// number of sources.
const OFFERS_QUEUED: usize = 16;

/// Fragments that are to take effect together, and where to say what became of them.
#[derive(Debug)]
pub struct Offer {
    pub fragments: Vec<Fragment>,
    pub reply: oneshot::Sender<Verdict>,
}

/// Where a source says what it knows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink(mpsc::Sender<Offer>);

impl Sink {
    #[must_use]
    pub fn channel() -> (Sink, mpsc::Receiver<Offer>) {
        let (sender, receiver) = mpsc::channel(OFFERS_QUEUED);
        (Sink(sender), receiver)
    }

    /// Hands fragments over and waits for the verdict; `None` when nobody listens any more.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it has queued the offer, it has said nothing; dropped later, the offer
    /// stands and its verdict is lost.
    pub async fn offer(&self, fragments: Vec<Fragment>) -> Option<Verdict> {
        let (reply, verdict) = oneshot::channel();
        self.0.send(Offer { fragments, reply }).await.ok()?;
        verdict.await.ok()
    }

    /// Waits until nobody listens any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}
