//! What happens to the log between two commands of one read.

use posduif_changelog::{Keys, LogReader, Timeouts, pool, reader::Read};
use posduif_model::Bucket;
use posduif_testkit::Servers;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use crate::fixture::{Api, put};

const LOOK: &[u8] = b"*2\r\n$7\r\nHGETALL";

/// Passes one connection on to Redis. The first command that looks at the state waits until everything before it was
/// answered and `meanwhile` has happened.
async fn pass(client: TcpStream, redis: TcpStream, meanwhile: impl AsyncFnOnce()) {
    let ((mut from_client, mut to_client), (mut from_redis, mut to_redis)) =
        (client.into_split(), redis.into_split());
    let mut chunk = vec![0; 1 << 16];
    let (before, after) = loop {
        let read = tokio::select! {
            read = from_client.read(&mut chunk) => read.unwrap(),
            _ = copy(&mut from_redis, &mut to_client) => return,
        };
        if let Some(at) = chunk[..read].windows(LOOK.len()).position(|window| window == LOOK) {
            break (chunk[..at].to_vec(), chunk[at..read].to_vec());
        }
        to_redis.write_all(&chunk[..read]).await.unwrap();
    };
    assert!(!before.is_empty(), "the look is a part of the read");
    to_redis.write_all(&before).await.unwrap();
    // Answers come in order: Redis has done all of it once it echoes this, which the client must not see.
    to_redis.write_all(b"*2\r\n$4\r\nECHO\r\n$6\r\nmarker\r\n").await.unwrap();
    let (echo, mut answers) = (b"$6\r\nmarker\r\n", Vec::new());
    while !answers.ends_with(echo) {
        from_redis.read_buf(&mut answers).await.unwrap();
    }
    meanwhile().await;
    to_client.write_all(&answers[..answers.len() - echo.len()]).await.unwrap();
    to_redis.write_all(&after).await.unwrap();
    let _ = tokio::join!(copy(&mut from_client, &mut to_redis), copy(&mut from_redis, &mut to_client));
}

#[tokio::test]
async fn a_tail_that_redis_lost_and_got_back_within_a_read_is_not_skipped() {
    let api = Api::start().await;
    let user = api.user("ann", "mobile").await;
    let bucket = [Bucket::User(user)];
    let row = |key: i32| put("tasks", json!({"id": key}), json!({"id": key}));
    let first = api.commit(None, &bucket, &[row(1)]).await;
    let before = api.log.lock().await.state().await;
    let second = api.commit(None, &bucket, &[row(2)]).await;

    let (keys, epoch) = (Keys::new(&api.tenant), api.log.lock().await.epoch);
    let (state, stream) = (keys.state(), keys.bucket(&epoch, &bucket[0]));
    let url = Servers::shared().await.redis_url();
    let mut redis =
        redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let kept: Vec<u8> = redis::cmd("DUMP").arg(&stream).query_async(&mut redis).await.unwrap();
    let set_commit = |commit: posduif_model::Lsn| {
        let mut command = redis::cmd("HSET");
        command.arg(&state).arg("commit").arg(commit.get());
        command
    };
    // What a restart without the last second of the append-only file leaves.
    let () = redis::cmd("XDEL")
        .arg(&stream)
        .arg(format!("{}-0", second.get()))
        .query_async(&mut redis)
        .await
        .unwrap();
    let () = set_commit(before.watermark.commit).query_async(&mut redis).await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, address) = url.split_once('@').unwrap();
    let (server, _) = address.split_once('/').unwrap();
    let through = url.replace(server, &listener.local_addr().unwrap().to_string());
    let reader = LogReader::new(pool(through.as_str(), 1, Timeouts::default()).unwrap(), &api.tenant);
    let passing = async {
        let (client, _) = listener.accept().await.unwrap();
        pass(client, TcpStream::connect(server).await.unwrap(), async || {
            let () = redis::cmd("RESTORE")
                .arg(&stream)
                .arg(0)
                .arg(&kept)
                .arg("REPLACE")
                .query_async(&mut redis)
                .await
                .unwrap();
            let () = set_commit(second).query_async(&mut redis).await.unwrap();
        })
        .await;
    };
    let read = tokio::select! {
        read = reader.read(&epoch, &bucket, first, second, 10) => read.unwrap(),
        () = passing => panic!("the connection ended first"),
    };
    assert_eq!(read, Read::Moved, "the streams were read before the tail was back");
    match reader_at(&url, &api).read(&epoch, &bucket, first, second, 10).await.unwrap() {
        Read::Page(page) => assert_eq!((page.entries.len(), page.through), (1, second)),
        other => panic!("{other:?}"),
    }
}

fn reader_at(url: &str, api: &Api) -> LogReader {
    LogReader::new(pool(url, 1, Timeouts::default()).unwrap(), &api.tenant)
}
