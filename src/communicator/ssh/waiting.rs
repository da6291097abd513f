//! The attempts at a login, one after the other, until one succeeds or there is no more time.
//!
//! While the guest boots, two connections are under way at a time. QEMU's user network accepts on behalf of a
//! guest that is not up, and then asks it ever more seldom: so connections are given up and begun anew quickly.
//! A guest that is up but slow needs more time for its banner than that: so every other connection is given
//! ever more time, and once the guest itself was heard of, fewer are begun: sshd turns away whoever has ten open.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::wait::{Report, Seen, State};
use super::dial::{Greeted, Link, greet};
use super::{Limits, Ssh};

/// Between the beginnings of two attempts.
const STEP: Duration = Duration::from_millis(250);

/// What the quick connections are given.
const QUICK: Duration = Duration::from_millis(500);

/// What the patient connections are given at first and at most.
const PATIENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Before another quick connection to a guest that is up and slow.
const SLOWLY: Duration = Duration::from_secs(2);

/// Why the attempts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No time is left.
    TimedOut,
    /// As many refusals as there may be.
    Refused,
}

/// Writes down what is seen, and tells news.
pub(super) struct Recorder<'a> {
    started: Instant,
    report: RefCell<Report>,
    tell: RefCell<&'a mut (dyn FnMut(&Seen) + Send)>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(tell: &'a mut (dyn FnMut(&Seen) + Send)) -> Self {
        Self {
            started: Instant::now(),
            report: RefCell::default(),
            tell: RefCell::new(tell),
        }
    }

    fn note(&self, state: State) {
        let now = self.started.elapsed();
        let mut report = self.report.borrow_mut();
        if state.is_refusal() {
            report.refusals = report.refusals.saturating_add(1);
        }
        if report.note(state, now)
            && let Some(seen) = report.seen.last()
        {
            (self.tell.borrow_mut())(seen);
        }
    }

    fn report(&self) -> Report {
        let mut report = self.report.borrow().clone();
        report.took = self.started.elapsed();
        report
    }
}

impl Ssh {
    /// Attempts until one succeeds.
    pub(super) async fn establish(
        &self,
        limits: &Limits,
        recorder: &Recorder<'_>,
    ) -> Result<(Link, Report), (End, Report)> {
        let attempts = self.attempts(limits, recorder);
        let ended = match limits.timeout {
            None => attempts.await,
            Some(limit) => timeout(limit, attempts).await.unwrap_or(Err(End::TimedOut)),
        };
        match ended {
            Ok(link) => {
                recorder.note(State::Ready);
                Ok((link, recorder.report()))
            }
            Err(end) => Err((end, recorder.report())),
        }
    }

    async fn attempts(&self, limits: &Limits, recorder: &Recorder<'_>) -> Result<Link, End> {
        let mut refusals = 0;
        loop {
            let state = match self.attempt(recorder).await {
                Ok(link) => return Ok(link),
                Err(state) => state,
            };
            let refused = state.is_refusal();
            recorder.note(state);
            if !refused {
                sleep(STEP).await;
                continue;
            }
            refusals += 1;
            if limits.attempts.is_some_and(|most| refusals >= most) {
                return Err(End::Refused);
            }
            // OpenSSH since 9.8 shuts out whoever fails more often than it can forget: 5 s for each refusal, and 15 s
            // are enough. So the pauses grow to what it forgets meanwhile.
            let seconds = [1, 2, 4].get(refusals as usize - 1).copied().unwrap_or(5);
            sleep(Duration::from_secs(seconds)).await;
        }
    }

    async fn attempt(&self, recorder: &Recorder<'_>) -> Result<Link, State> {
        let through = match &self.options.bastion {
            None => None,
            Some(_) => Some(
                self.bastion()
                    .await
                    .map_err(|state| State::Bastion(Box::new(state)))?,
            ),
        };
        let greeted = self.greeted(through, recorder).await?;
        self.heard.store(true, Ordering::Relaxed);
        recorder.note(State::Banner {
            text: greeted.banner.clone(),
        });
        let agent = self.options.forward_agent.as_deref();
        greeted
            .log_in(
                &self.options.guest,
                &self.options,
                &self.trust,
                agent,
                self.options.patience,
                &|state| recorder.note(state),
            )
            .await
    }

    /// Connections to the guest until one has its banner.
    async fn greeted(
        &self,
        through: Option<Arc<Link>>,
        recorder: &Recorder<'_>,
    ) -> Result<Greeted, State> {
        let quick = async {
            loop {
                let begun = Instant::now();
                let state = match timeout(QUICK, greet(&self.options.guest, through.clone())).await
                {
                    Ok(Ok(greeted)) => return Ok(greeted),
                    Ok(Err(State::Bastion(state))) => return Err(State::Bastion(state)),
                    Ok(Err(state)) => state,
                    Err(_) => State::Silent,
                };
                let heard = self.heard.load(Ordering::Relaxed);
                let slow = match state {
                    State::Silent => heard,
                    State::TurnedAway { .. } => true,
                    _ => false,
                };
                // Of these it is the guest that speaks, not QEMU in its place.
                let speaks = !matches!(
                    state,
                    State::Silent | State::NotListening | State::Unreachable { .. }
                );
                self.heard.store(heard || speaks, Ordering::Relaxed);
                recorder.note(state);
                sleep_until(begun + if slow { SLOWLY } else { STEP }).await;
            }
        };
        let patient = async {
            sleep(QUICK).await;
            let (mut time, most) = PATIENT;
            loop {
                let begun = Instant::now();
                let slow = match timeout(time, greet(&self.options.guest, through.clone())).await {
                    Ok(Ok(greeted)) => return Ok(greeted),
                    Ok(Err(State::Bastion(state))) => return Err(State::Bastion(state)),
                    // The quick ones have told already.
                    Ok(Err(state)) => matches!(state, State::TurnedAway { .. }),
                    Err(_) => {
                        time = most.min(time * 2);
                        false
                    }
                };
                sleep_until(begun + if slow { SLOWLY } else { STEP }).await;
            }
        };
        tokio::select! {
            greeted = quick => greeted,
            greeted = patient => greeted,
        }
    }

    /// The connection to the bastion, a new one if need be.
    async fn bastion(&self) -> Result<Arc<Link>, State> {
        let Some(to) = &self.options.bastion else {
            return Err(State::NotListening);
        };
        let mut slot = self.bastion_link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
            return Ok(Arc::clone(link));
        }
        *slot = None;
        let patience = self.options.patience;
        let greeted = timeout(patience, greet(to, None))
            .await
            .unwrap_or(Err(State::Silent))?;
        let link = greeted
            .log_in(
                to,
                &self.options,
                &self.bastion_trust,
                None,
                patience,
                &|_| (),
            )
            .await?;
        let link = Arc::new(link);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }
}
