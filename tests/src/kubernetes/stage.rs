//! Either API server, for scripts that are played on both.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use super::api::Api;
use super::cluster::Cluster;
use super::queue_proxy::{QueueProxy, own_address};
use super::real::{Real, assets};

/// What a script is played on.
#[derive(Debug)]
pub enum Stage {
    Fake(Box<Api>),
    Real(Box<Real>),
}

impl Deref for Stage {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match self {
            Stage::Fake(api) => api,
            Stage::Real(real) => real,
        }
    }
}

impl Stage {
    #[must_use]
    pub fn fake() -> Stage {
        Stage::Fake(Box::new(Api::start()))
    }

    /// A real API server, where there is one; else a test says that it was skipped.
    pub async fn real() -> Option<Stage> {
        let Some(assets) = assets() else {
            eprintln!("skipped: KUBEBUILDER_ASSETS is not set");
            return None;
        };
        Some(Stage::Real(Box::new(Real::start(&assets).await)))
    }

    /// An address for one more pod. On a real stage they share one and differ in their ports.
    ///
    /// # Panics
    /// On a real stage of a machine without a network.
    #[must_use]
    pub fn pod_address(&self) -> IpAddr {
        match self {
            Stage::Fake(_) => Ipv4Addr::into(own_address()),
            Stage::Real(_) => Real::pod_address(),
        }
    }

    /// A pod that is not ready, at an address that this stage's objects may have. `concurrency` is
    /// its revision's limit, 0 for none.
    #[must_use]
    pub fn pod(&self, name: &str, concurrency: usize) -> QueueProxy {
        QueueProxy::at(SocketAddr::new(self.pod_address(), 0), name, concurrency)
    }
}

/// Makes two tests of every script, a function of a [`Stage`]: one on the fake, and one on a real
/// API server.
#[macro_export]
macro_rules! on_both_stages {
    ($($script:ident,)+) => {
        mod on_the_fake {
            $(#[tokio::test]
            async fn $script() {
                super::$script($crate::kubernetes::Stage::fake()).await;
            })+
        }

        mod on_a_real_api_server {
            $(#[tokio::test]
            async fn $script() {
                if let Some(stage) = $crate::kubernetes::Stage::real().await {
                    super::$script(stage).await;
                }
            })+
        }
    };
}
