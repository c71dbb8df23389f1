//! A part of one processor core for a process, as Lambda gives it to a function by its memory.
//!
//! Lambda's means is a quota of CPU time per period. The kernel's own quota is used where this user may make a control
//! group; elsewhere a thread keeps the account and stops the process while it is overdrawn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How much CPU time a process gets, and in what portions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Of one core.
    pub share: f64,
    /// Every period adds its part, and what is not used in it is lost.
    pub period: Duration,
}

/// By what a share can be held on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// `cpu.max` of control groups, version 2.
    Quota,
    /// `cpu.cfs_quota_us` of control groups, version 1.
    OldQuota,
    /// SIGSTOP and SIGCONT.
    Signals,
}

/// Holds a process to its share until it is dropped.
pub struct Share {
    hold: Hold,
}

enum Hold {
    Group(PathBuf),
    Thread { pid: u32, end: Arc<AtomicBool>, thread: Option<JoinHandle<()>> },
}

impl Means {
    /// The best one, by trying.
    #[must_use]
    pub fn find() -> Self {
        let works = |means: &Self| {
            means
                .group(Allowance { share: 0.5, period: Duration::from_millis(20) }, "probe")
                .is_ok_and(|group| fs::remove_dir(group).is_ok())
        };
        [Self::Quota, Self::OldQuota].into_iter().find(works).unwrap_or(Self::Signals)
    }

    /// Makes a control group with the quota, and nobody in it yet.
    fn group(self, allowance: Allowance, name: &str) -> io::Result<PathBuf> {
        let parent = if self == Self::Quota { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpu" };
        let group = Path::new(parent).join(format!("keywheel-{}-{name}", std::process::id()));
        fs::create_dir(&group)?;
        let quota = allowance.period.mul_f64(allowance.share).as_micros();
        let period = allowance.period.as_micros();
        let set = if self == Self::Quota {
            set(&group.join("cpu.max"), &format!("{quota} {period}"))
        } else {
            set(&group.join("cpu.cfs_period_us"), &period.to_string())
                .and_then(|()| set(&group.join("cpu.cfs_quota_us"), &quota.to_string()))
        };
        if set.is_err() {
            let _ = fs::remove_dir(&group);
        }
        set.map(|()| group)
    }

    /// Holds process `pid` to `allowance` from now on.
    ///
    /// # Errors
    /// When it is gone, or the kernel refuses.
    pub fn hold(self, pid: u32, allowance: Allowance) -> io::Result<Share> {
        let hold = if self == Self::Signals {
            let end = Arc::new(AtomicBool::new(false));
            let ended = end.clone();
            let thread = thread::spawn(move || keep_account(pid, allowance, &ended));
            Hold::Thread { pid, end, thread: Some(thread) }
        } else {
            Hold::Group(self.group(allowance, &pid.to_string())?)
        };
        let share = Share { hold };
        if let Hold::Group(group) = &share.hold {
            set(&group.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(share)
    }

    /// The share that a process gets which wants as much as it can have, measured for a second.
    ///
    /// # Errors
    /// When there is no shell, or the kernel refuses.
    pub fn measure(self, allowance: Allowance) -> io::Result<f64> {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn()?;
        let measured = self.hold(busy.id(), allowance).and_then(|_held| {
            let (before, started) = (cpu_time(busy.id())?, Instant::now());
            thread::sleep(Duration::from_secs(1));
            Ok((cpu_time(busy.id())?.saturating_sub(before)).as_secs_f64() / started.elapsed().as_secs_f64())
        });
        busy.kill()?;
        busy.wait()?;
        measured
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        match &mut self.hold {
            Hold::Group(group) => {
                // A group with processes cannot be removed.
                let parent = group.parent().map(|parent| parent.join("cgroup.procs")).unwrap_or_default();
                for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                    let _ = set(&parent, pid);
                }
                let _ = fs::remove_dir(group);
            }
            Hold::Thread { pid, end, thread } => {
                end.store(true, Ordering::Relaxed);
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
                signal(*pid, Signal::CONT);
            }
        }
    }
}

/// The CPU time of a process so far, to the microsecond: `/proc/PID/stat` counts in hundredths of a second. Threads that
/// have ended are not in it.
///
/// # Errors
/// When it is gone.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let account = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanoseconds = account.split(' ').next().and_then(|first| first.parse::<u64>().ok());
        total += nanoseconds.ok_or_else(|| io::Error::other("the kernel keeps no account of CPU time"))?;
    }
    Ok(Duration::from_nanos(total))
}

/// What the kernel's quota does: every period adds its part, none is saved, and a debt is paid by waiting.
fn keep_account(pid: u32, allowance: Allowance, ended: &AtomicBool) {
    let Allowance { share, period } = allowance;
    let quota = period.as_secs_f64() * share;
    let mut left = quota;
    let Ok(mut seen) = cpu_time(pid) else { return };
    let mut next_period = Instant::now() + period;
    let mut stopped = false;
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(250));
        // The process may be gone before its share is.
        let Ok(used) = cpu_time(pid) else { return };
        left -= used.saturating_sub(seen).as_secs_f64();
        seen = used;
        while Instant::now() >= next_period {
            left = (left + quota).min(quota);
            next_period += period;
        }
        if (left <= 0.0) != stopped {
            stopped = !stopped;
            signal(pid, if stopped { Signal::STOP } else { Signal::CONT });
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    // Not created: where there is no such file, there is no such quota.
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_gets_its_share_and_no_more() {
        for means in [Means::find(), Means::Signals] {
            let got = means.measure(Allowance { share: 0.25, period: Duration::from_millis(20) }).unwrap();
            // On a busy machine it may get less.
            assert!((0.02..0.35).contains(&got), "{means:?}: {got}");
        }
    }
}
