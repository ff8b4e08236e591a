//! An endpoint that notes who comes, and lets them go one by one as the test says.

use std::fmt;
use std::sync::{Arc, Mutex};

use hyper::Response;
use tokio::sync::Semaphore;

use crate::Backend;
use crate::body::empty;
use crate::wait::{PATIENCE, eventually};

/// Dropped, it is gone with all its connections.
#[derive(Debug)]
pub struct Turnstile {
    backend: Backend,
    order: Arc<Mutex<Vec<String>>>,
    permits: Arc<Semaphore>,
}

impl Turnstile {
    /// Nobody is let go before [`Turnstile::pass`].
    #[must_use]
    pub fn start() -> Turnstile {
        let order = Arc::new(Mutex::new(Vec::new()));
        let permits = Arc::new(Semaphore::new(0));
        let (seen, gate) = (order.clone(), permits.clone());
        let backend = Backend::with(move |request| {
            seen.lock().unwrap().push(request.uri().path().to_owned());
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Response::new(empty())
            }
        });
        Turnstile {
            backend,
            order,
            permits,
        }
    }

    /// Answers so many, of those that are here and those that come.
    pub fn pass(&self, count: usize) {
        self.permits.add_permits(count);
    }

    /// The paths of all that came, in the order they did.
    #[must_use]
    pub fn order(&self) -> Vec<String> {
        self.order.lock().unwrap().clone()
    }

    /// Waits until somebody has come.
    ///
    /// # Panics
    /// When nobody does.
    pub async fn begun(&self) {
        eventually(PATIENCE, "the first is in", async || {
            (!self.order.lock().unwrap().is_empty()).then_some(())
        })
        .await;
    }
}

impl fmt::Display for Turnstile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}
