//! A tenant that is polled, then follows the WAL, then is polled again, with a phone that notices nothing.

use std::time::Duration;

use posduif_changelog::LogState;
use posduif_model::Source;
use posduif_sdk::Device;
use posduif_testkit::{Servers, eventually};
use serde_json::json;

use crate::{
    fleet::{self, PASSWORD},
    web::WebUser,
};

const SOON: Duration = Duration::from_secs(60);

async fn holds(phone: &Device, expected: &[String]) {
    eventually(SOON, "the phone has its messages and owes none", async || {
        phone.sync().await?;
        let inbox: Vec<String> = phone.inbox()?.into_iter().filter_map(|message| message.content).collect();
        assert!(inbox.len() <= expected.len(), "the phone received too much: {inbox:?}");
        Ok((inbox == expected && phone.pending_count()? == 0).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_does_not_notice_where_its_changes_come_from() {
    let fleet = fleet::polled().await;
    let bob = WebUser::log_in(&fleet.api_url, "Web", PASSWORD).await;
    let url = bob.create_enrollment(None).await;
    let joe = Device::enroll(fleet.scratch.join("joe.sqlite"), &url, "Joe", json!({ "model": "test" }))
        .await
        .unwrap();
    let client = fleet.database.connect().await;
    let tenant = fleet.database.name().parse().unwrap();
    let redis = Servers::shared().await.redis_url();
    let mut redis =
        posduif_changelog::connect::connect(redis.as_str(), posduif_changelog::Timeouts::default())
            .await
            .unwrap();
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    for (round, source) in [Source::Polling, Source::Wal, Source::Polling].into_iter().enumerate() {
        if round > 0 {
            // Under way while the source changes.
            joe.send_message(bob.id, &format!("between {round}")).unwrap();
            sent.push(format!("between {round}"));
            received.push(format!("also between {round}"));
            bob.send(joe.user_id(), received.last().unwrap()).await;
            fleet.use_wal(source == Source::Wal);
        }
        eventually(SOON, "the log is fed from there", async || {
            let state = LogState::read(&mut redis, &tenant).await?;
            Ok(state.filter(|state| state.supply.source == source))
        })
        .await;
        received.push(format!("to Joe, {round}"));
        bob.send(joe.user_id(), received.last().unwrap()).await;
        joe.send_message(bob.id, &format!("to Bob, {round}")).unwrap();
        sent.push(format!("to Bob, {round}"));
        holds(&joe, &received).await;
    }
    let mut conversation = bob.conversation(joe.user_id()).await;
    conversation.sort();
    let mut all: Vec<String> = received.into_iter().chain(sent).collect();
    all.sort();
    assert_eq!(conversation, all);
    let epochs = "SELECT count(*) FROM posduif_engine.epoch_history";
    assert_eq!(
        client.query_one(epochs, &[]).await.unwrap().get::<_, i64>(0),
        1,
        "the phone had to begin again"
    );
}
