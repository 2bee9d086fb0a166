//! A process may die between any two steps, and an old copy of its file may come back.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use posduif_sdk::Device;
use serde_json::json;

use crate::{
    ledger::{Shared, sorted},
    server::{Answer, BOB, INCOMING, ME, Server, bob, column, message},
};

/// Polls a future so many times; `None` if it was not ready then.
struct Polls<F> {
    future: F,
    left: usize,
}

impl<F: Future + Unpin> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Pin::new(&mut self.future).poll(context).map(Some)
    }
}

fn shown(device: &Device) -> (Vec<String>, Vec<String>) {
    let messages = column(device, "SELECT content FROM messages");
    (sorted(messages), sorted(column(device, "SELECT title FROM notes")))
}

/// What is on the disk at this instant, as a process that starts after a death finds it.
fn image(of: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        let _ = std::fs::remove_file(name(to));
        let _ = std::fs::remove_file(format!("{}-shm", to.display()));
        if name(of).exists() {
            std::fs::copy(name(of), name(to)).unwrap();
        }
    }
}

/// Syncs until nothing is left to do.
async fn converge(device: &Device) {
    for _ in 0..3 {
        while let Err(error) = device.sync().await {
            assert!(error.is_temporary(), "{error}");
        }
    }
}

/// A ledger with some history, and a device that has half of it, unsent writes and a stranger's edit below one.
async fn half_way(server: &Server, ledger: &Shared) -> Device {
    server.handle(ledger.handler());
    ledger.with(|ledger| {
        for id in 1..=3 {
            ledger.deliver(message(id, BOB, ME, &format!("old {id}")));
        }
    });
    let device = server.device().await;
    device
        .connection()
        .execute("INSERT INTO notes (id, title) VALUES ('n0', 'synced'), ('n9', 'leaves')", [])
        .unwrap();
    converge(&device).await;
    ledger.with(|ledger| {
        for id in 4..=8 {
            ledger.deliver(message(id, BOB, ME, &format!("new {id}")));
        }
    });
    for content in ["one", "two"] {
        device.send_message(bob(), content).unwrap();
    }
    let writes = "INSERT INTO notes (id, title) VALUES ('n1', 'inserted');
                  UPDATE notes SET title = 'edited' WHERE id = 'n0';
                  UPDATE notes SET title = 'edited twice' WHERE id = 'n1';
                  DELETE FROM notes WHERE id = 'n9';";
    device.connection().execute_batch(writes).unwrap();
    device
}

#[tokio::test]
async fn a_death_after_any_step_loses_nothing_and_does_nothing_twice() {
    let server = Server::start().await;
    let start = server.folder.path().join("start.sqlite");
    let died = server.folder.path().join("died.sqlite");
    let original = Shared::default();
    let device = half_way(&server, &original).await;
    image(&server.path(), &start);
    let before = shown(&device);
    drop(device);

    let mut deaths = 0;
    for polls in 0.. {
        // The same server each time, as it was when the device began.
        let ledger = Shared::default();
        original.with(|original| ledger.with(|ledger| *ledger = original.clone()));
        server.handle(ledger.handler());
        image(&start, &server.path());
        let device = Device::open(server.path()).unwrap();
        let ended = {
            let sync = pin!(device.sync());
            let ended = Polls { future: sync, left: polls }.await;
            image(&server.path(), &died);
            ended
        };
        drop(device);

        let device = Device::open(&died).unwrap();
        let (messages, notes) = shown(&device);
        let old = messages == before.0 && notes == before.1;
        let (all_messages, all_notes) = ledger.with(|ledger| ledger.truth());
        let new = messages.iter().filter(|content| content.starts_with("new")).count();
        assert!(
            old || new == 5 && messages == all_messages && notes == all_notes,
            "{polls}: {messages:?} {notes:?}"
        );
        converge(&device).await;
        ledger.with(|ledger| {
            assert_eq!(shown(&device), ledger.truth(), "after {polls} polls");
            assert!(ledger.applied.values().all(|times| *times == 1), "{polls}: {:?}", ledger.applied);
            assert_eq!(ledger.mistaken, 0, "after {polls} polls");
        });
        let left = column(&device, "SELECT op FROM posduif_outbox UNION ALL SELECT id FROM posduif_upload");
        assert_eq!((left, device.rejected().unwrap().len()), (vec![], 0), "after {polls} polls");
        if let Some(result) = ended {
            result.unwrap();
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 20, "only {deaths} deaths");
}

/// What may go wrong with one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It arrives, and its answer does not.
    LostAnswer,
    Unreached,
    Garbage,
    Broken,
    /// The log was lost: pages are refused, and other requests as busy ones.
    Expired,
    /// The tables are others from now on, and what names the old ones is refused.
    NewRules,
}

/// Lets the fault happen to one request after the other.
async fn heals(fault: Fault) {
    use Fault::{Broken, Expired, Garbage, LostAnswer, NewRules, Unreached};
    let server = Server::start().await;
    let start = server.folder.path().join("start.sqlite");
    let original = Shared::default();
    drop(half_way(&server, &original).await);
    image(&server.path(), &start);

    for at in 0.. {
        let ledger = Shared::default();
        original.with(|original| ledger.with(|ledger| *ledger = original.clone()));
        let mut handler = ledger.handler();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let rules = ledger.clone();
        server.handle(move |request| {
            if counted.fetch_add(1, Ordering::Relaxed) != at {
                return handler(request);
            }
            Some(match fault {
                LostAnswer => {
                    handler(request);
                    Answer::Cut
                }
                Unreached => Answer::Cut,
                Garbage => Answer::Raw(200, "", "<html>".to_owned()),
                Expired | NewRules => {
                    rules.with(|ledger| ledger.more_tables |= matches!(fault, NewRules));
                    let (status, code) = match request.route.as_str() {
                        INCOMING => (410, "CURSOR_EXPIRED"),
                        _ => (500, "INTERNAL_ERROR"),
                    };
                    Answer::Json(status, json!({"error": {"code": code, "message": "lost"}}))
                }
                Broken => Answer::Raw(500, "", String::new()),
            })
        });
        image(&start, &server.path());
        let device = Device::open(server.path()).unwrap();
        // The fault may end a sync, and no more than that.
        let case = format!("{fault:?} at request {at}");
        let (mut good, mut failed) = (0, 0);
        while good < 2 {
            match device.sync().await {
                Ok(_) => good += 1,
                Err(_) => failed += 1,
            }
            assert!(failed < 2, "{case}: it failed again");
        }
        ledger.with(|ledger| {
            assert_eq!(shown(&device), ledger.truth(), "{case}");
            assert!(ledger.truth().1.contains(&"edited twice".to_owned()), "{case}");
            assert!(ledger.applied.values().all(|times| *times == 1), "{case}: {:?}", ledger.applied);
            assert_eq!(ledger.mistaken, 0, "{case}");
            let extra = column(&device, "SELECT name FROM sqlite_schema WHERE name = 'extra'");
            assert_eq!(extra.is_empty(), !ledger.more_tables, "{case}");
            if ledger.more_tables {
                assert_eq!(column(&device, "SELECT id FROM extra"), ["e1"], "{case}");
            }
        });
        assert_eq!((device.pending_count().unwrap(), device.rejected().unwrap()), (0, vec![]), "{case}");
        if count.load(Ordering::Relaxed) <= at {
            assert!(at > 4, "{case}: there were no more requests");
            break;
        }
    }
}

#[tokio::test]
async fn a_lost_answer_to_any_request_heals_and_keeps_the_unsent_writes() {
    heals(Fault::LostAnswer).await;
}

#[tokio::test]
async fn an_unreached_server_at_any_request_heals_and_keeps_the_unsent_writes() {
    heals(Fault::Unreached).await;
}

#[tokio::test]
async fn a_strangers_answer_to_any_request_heals_and_keeps_the_unsent_writes() {
    heals(Fault::Garbage).await;
}

#[tokio::test]
async fn a_broken_server_at_any_request_heals_and_keeps_the_unsent_writes() {
    heals(Fault::Broken).await;
}

#[tokio::test]
async fn a_lost_log_at_any_request_heals_and_keeps_the_unsent_writes() {
    heals(Fault::Expired).await;
}

#[tokio::test]
async fn new_rules_at_any_request_heal_and_keep_the_unsent_writes() {
    heals(Fault::NewRules).await;
}

#[tokio::test]
async fn a_file_restored_from_a_backup_converges_and_repeats_no_effect() {
    let server = Server::start().await;
    let ledger = Shared::default();
    let backup = server.folder.path().join("backup.sqlite");
    let device = half_way(&server, &ledger).await;
    image(&server.path(), &backup);
    converge(&device).await;
    device.send_message(bob(), "after the backup").unwrap();
    device
        .connection()
        .execute_batch(
            "UPDATE notes SET title = 'after the backup' WHERE id = 'n1';
             INSERT INTO notes (id, title) VALUES ('n2', 'after the backup');
             DELETE FROM notes WHERE id = 'n0';",
        )
        .unwrap();
    converge(&device).await;
    let truth = ledger.with(|ledger| ledger.truth());
    assert_eq!(shown(&device), truth);
    drop(device);

    image(&backup, &server.path());
    let device = Device::open(server.path()).unwrap();
    converge(&device).await;
    assert_eq!(ledger.with(|ledger| ledger.truth()), truth, "the old file changed nothing at the server");
    assert_eq!(shown(&device), truth, "what was written after the backup came back");
    assert_eq!(device.pending_count().unwrap(), 0);
    let listed = device.rejected().unwrap();
    assert!(!listed.is_empty() && listed.iter().all(|write| write.code == "CONFLICT"), "{listed:?}");
}

#[tokio::test]
async fn two_copies_of_one_file_do_no_harm() {
    let server = Server::start().await;
    let ledger = Shared::default();
    let first = half_way(&server, &ledger).await;
    let copy = server.folder.path().join("copy.sqlite");
    image(&server.path(), &copy);
    let second = Device::open(&copy).unwrap();
    for round in 0..3 {
        for (name, device) in [("first", &first), ("second", &second)] {
            device.send_message(bob(), &format!("{name} {round}")).unwrap();
            let sql = "INSERT OR REPLACE INTO notes (id, title) VALUES (?1, ?2), ('shared', ?2)";
            device
                .connection()
                .execute(sql, [format!("{name} {round}"), format!("{name}, {round}")])
                .unwrap();
        }
        let (one, other) = tokio::join!(first.sync(), second.sync());
        one.unwrap();
        other.unwrap();
    }
    converge(&first).await;
    converge(&second).await;
    let truth = ledger.with(|ledger| ledger.truth());
    assert_eq!(
        (
            truth
                .0
                .iter()
                .filter(|content| content.starts_with("first") || content.starts_with("second"))
                .count(),
            truth.1.len()
        ),
        (6, 9)
    );
    assert_eq!(shown(&first), truth);
    assert_eq!(shown(&second), truth);
    ledger.with(|ledger| assert_eq!(ledger.mistaken, 0));
}
