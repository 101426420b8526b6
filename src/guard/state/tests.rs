use std::path::Path;

use super::*;
use crate::config::ChosenBy;
use crate::vrrp::machine::Reason;

const CONFIG: &str = "
    [[listener]]
    name = \"http\"
    bind = [\"127.0.0.1:8080\"]
    pool = \"app\"

    [[pool]]
    name = \"app\"
    servers = [{ name = \"app1\", address = \"127.0.0.1:8081\" }]
";

fn node() -> (Node, mpsc::Receiver<ToWorker>) {
    let config = crate::config::parse(CONFIG, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    let local = LocalNode { index: None, name: "lb-a".to_owned(), because: ChosenBy::Flag };
    let (events, _) = Events::start(&config, "lb-a", Path::new("/nonexistent"));
    let mut node = Node::new(config, local, Vec::new(), events, Vec::new());
    let (sender, orders) = mpsc::channel(64);
    node.orders = Some(sender);
    (node, orders)
}

fn takes_over(node: &mut Node, vip: usize) {
    let (from, to) = (State::Backup, State::Active);
    node.heartbeat_event(heartbeat::Event::Changed { vip, from, to, reason: Reason::Ready, epoch: 1 });
}

fn count(orders: &mut mpsc::Receiver<ToWorker>) -> usize {
    let mut count = 0;
    while let Ok(order) = orders.try_recv() {
        assert!(matches!(order, ToWorker::TookOver), "{order:?}");
        count += 1;
    }
    count
}

#[tokio::test]
async fn many_vips_taken_over_at_once_are_one_order_at_once_and_one_after_the_last() {
    let (mut node, mut orders) = node();
    let began = Instant::now();
    takes_over(&mut node, 0);
    assert_eq!(count(&mut orders), 1, "before anything is served");
    for vip in 1..26 {
        takes_over(&mut node, vip);
    }
    let last_came = Instant::now();
    let mut last_told = None;
    let mut told = count(&mut orders);
    while let Some(due_at) = node.took_over_due_at() {
        tokio::time::sleep_until(due_at.into()).await;
        node.tell_took_over();
        last_told = Some(Instant::now());
        told += count(&mut orders);
    }
    assert!(last_told.is_some_and(|at| at >= last_came), "the last one begins an epoch as well");
    // One, unless this machine took its time to say all of that.
    let intervals = usize::try_from(last_came.duration_since(began).as_millis() / 100).unwrap();
    assert!((1..=1 + intervals).contains(&told), "{told} in {intervals} intervals");
    takes_over(&mut node, 0);
    tokio::time::sleep_until(node.took_over_due_at().unwrap_or(last_came).into()).await;
    node.tell_took_over();
    assert_eq!(count(&mut orders), 1, "a later one counts for itself");
}

/// A new worker knows of no epoch, however soon it comes after the one before.
#[tokio::test]
async fn new_worker_is_told_at_once() {
    let (mut node, mut orders) = node();
    takes_over(&mut node, 0);
    let (commands, _received) = mpsc::channel(8);
    let counters = Arc::new(VipCounters::new(Vec::new()));
    let mut vip = Vip::new(Priority::new(100).unwrap(), counters, commands, 1);
    vip.state = State::Active;
    node.vips.push(vip);
    assert_eq!(count(&mut orders), 1);
    node.worker_event(supervisor::Event::Ready);
    assert_eq!(count(&mut orders), 1);
    assert_eq!(node.took_over_due_at(), None);
}
