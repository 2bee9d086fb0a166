//! `admin`: the ports for operators, which stay inside the network.

use std::net::SocketAddr;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    pub ingester_bind: SocketAddr,
    pub api_bind: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig {
            ingester_bind: SocketAddr::from(([0, 0, 0, 0], 9091)),
            api_bind: SocketAddr::from(([0, 0, 0, 0], 9090)),
        }
    }
}
