//! Callers behind the shipped balancer: each has a limit of its own, whatever it says of itself.

use std::net::Ipv4Addr;

use posduif_testkit::Servers;
use serde_json::json;

use crate::{
    balancer::{Balancer, Ports},
    site::{Settings, Site, address},
};

#[tokio::test(flavor = "multi_thread")]
async fn callers_behind_the_balancer_are_told_apart_and_cannot_claim_to_be_another() {
    let ports = Ports::choose();
    let limits = json!({ "requests_per_minute": 1, "burst": 5 });
    let settings = Settings { limits: Some(limits), ..Settings::default() };
    let site = Site::start(Servers::shared().await, settings).await;
    let replicas: Vec<Ipv4Addr> = vec![address(0).parse().unwrap()];
    let at = Ports { public: site.port, admin: site.admin_port };
    let _balancer = Balancer::start(ports, &replicas, at).await;
    let ask = async |from: [u8; 4], claims: String| {
        let client = reqwest::Client::builder().no_proxy().local_address(std::net::IpAddr::from(from));
        let request = client.build().unwrap().get(format!("http://127.0.0.1:{}/api/nothing", ports.public));
        let response = request.header("X-Forwarded-For", claims).send().await.unwrap();
        let left = response.headers()["x-ratelimit-remaining"].to_str().unwrap().to_owned();
        (response.status().as_u16(), left)
    };
    for n in 0..5 {
        let left = (4 - n).to_string();
        assert_eq!(ask([127, 0, 0, 2], format!("192.0.2.{n}")).await, (404, left));
    }
    assert_eq!(ask([127, 0, 0, 2], "192.0.2.9".to_owned()).await, (429, "0".to_owned()));
    assert_eq!(ask([127, 0, 0, 3], "127.0.0.2".to_owned()).await, (404, "4".to_owned()));
}
