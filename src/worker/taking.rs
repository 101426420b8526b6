//! Files that have changed, on their way into use. What is made of them can take a while, a list of a million networks
//! about a second: a thread of its own does it, and the worker's loop goes on answering the guard. What had been made of
//! the former files counts meanwhile.

use tokio::task::JoinHandle;

/// Makes anew what is made of files, and says in words what cannot be used.
type Take = Box<dyn FnOnce() -> Vec<String> + Send>;

/// One set of files is taken at a time, and only the newest one waits: so what is in use is never older than what was in
/// use before.
#[derive(Default)]
pub struct Taking {
    under_way: Option<JoinHandle<Vec<String>>>,
    waiting: Option<Take>,
}

impl Taking {
    /// Takes a set of files, newer than all before it.
    pub fn begin(&mut self, take: impl FnOnce() -> Vec<String> + Send + 'static) {
        if self.under_way.is_some() {
            self.waiting = Some(Box::new(take));
        } else {
            self.under_way = Some(tokio::task::spawn_blocking(take));
        }
    }

    /// Waits until all files are taken; what of the last of them could not be used, in words. Never ends while there is
    /// nothing to do. Cancel safe.
    pub async fn taken(&mut self) -> Vec<String> {
        loop {
            let Some(under_way) = &mut self.under_way else { std::future::pending().await };
            let warnings = under_way.await;
            self.under_way = self.waiting.take().map(tokio::task::spawn_blocking);
            if self.under_way.is_none() {
                let ended = |_| vec!["changed files are not in use: the thread for them ended".to_owned()];
                return warnings.unwrap_or_else(ended);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn on_a_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    async fn is_pending(taking: &mut Taking) -> bool {
        tokio::time::timeout(Duration::from_millis(20), taking.taken()).await.is_err()
    }

    #[test]
    fn nothing_is_taken_while_nothing_has_changed() {
        on_a_runtime(async {
            let mut taking = Taking::default();
            assert!(is_pending(&mut taking).await);
            taking.begin(|| vec!["bad".to_owned()]);
            assert_eq!(taking.taken().await, ["bad"]);
            assert!(is_pending(&mut taking).await);
        });
    }

    #[test]
    fn the_loop_goes_on_meanwhile_and_only_the_newest_files_are_taken_next() {
        on_a_runtime(async {
            let mut taking = Taking::default();
            let (go_on, waits) = mpsc::channel::<()>();
            let (ran, order) = mpsc::channel();
            let job = |name: &'static str| {
                let ran = ran.clone();
                move || {
                    ran.send(name).unwrap();
                    vec![name.to_owned()]
                }
            };
            let first = job("first");
            taking.begin(move || {
                waits.recv().unwrap();
                first()
            });
            taking.begin(job("second"));
            taking.begin(job("third"));
            assert!(is_pending(&mut taking).await);
            go_on.send(()).unwrap();
            assert_eq!(taking.taken().await, ["third"]);
            drop(ran);
            assert_eq!(order.into_iter().collect::<Vec<_>>(), ["first", "third"]);
        });
    }
}
