//! Which setting of the machine forbids namespaces, and the command that changes it.
//!
//! The kernel answers `EPERM` or `ENOSPC` whatever the reason, and a reader of "operation not permitted" is left to guess
//! among half a dozen switches. So the settings are read and judged, in the order of how surely each explains the error.

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;

/// Namespaces cannot be had here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// What was tried.
    pub step: Step,
    /// What the kernel answered.
    pub errno: Errno,
    /// The setting that explains it; `None` when none of those that we know does.
    pub setting: Option<Setting>,
}

/// A step on the way into namespaces of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// unshare(2).
    Unshare,
    /// Writing uid_map, gid_map or setgroups.
    MapIds,
    /// Making mounts private, and the file system on /run.
    Mount,
    /// The network namespace of a machine of the lab.
    NetworkNamespace,
}

/// What forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `user.max_user_namespaces` is 0.
    MaxUserNamespaces,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's own switch).
    UnprivilegedUsernsClone,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu since 23.10).
    ApparmorRestrict,
    /// `user.max_net_namespaces` is too low for the lab.
    MaxNetNamespaces,
    /// `user.max_mnt_namespaces` is too low for the lab.
    MaxMntNamespaces,
    /// A system call filter, as container engines set it.
    Seccomp,
    /// The process already has threads; a fault of ours, not of the machine.
    Threads,
}

/// What the machine says about its settings. `None` where the kernel has no such setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether the effective user id is 0.
    pub root: bool,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `user.max_net_namespaces`.
    pub max_net_namespaces: Option<u64>,
    /// `user.max_mnt_namespaces`.
    pub max_mnt_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`.
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub apparmor_restrict: Option<u64>,
    /// `Seccomp:` of /proc/self/status; 2 is a filter.
    pub seccomp: Option<u64>,
    /// Threads of this process.
    pub threads: Option<u64>,
}

/// Network namespaces that the lab needs: its own, the switch, two nodes, a client, three servers.
const NET_NAMESPACES_NEEDED: u64 = 8;

impl Settings {
    /// Reads them from /proc.
    pub fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            root: rustix::process::geteuid().is_root(),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            max_net_namespaces: number("/proc/sys/user/max_net_namespaces"),
            max_mnt_namespaces: number("/proc/sys/user/max_mnt_namespaces"),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            seccomp: field(&status, "Seccomp:"),
            threads: field(&status, "Threads:"),
        }
    }

    /// The setting that explains why `step` ended in `errno`.
    fn explain(&self, step: Step, errno: Errno) -> Option<Setting> {
        let limits = errno == Errno::NOSPC || errno == Errno::USERS;
        let denied = errno == Errno::PERM || errno == Errno::ACCESS;
        if errno == Errno::INVAL && step == Step::Unshare && self.threads.is_some_and(|threads| threads > 1) {
            return Some(Setting::Threads);
        }
        if limits && self.max_user_namespaces == Some(0) {
            return Some(Setting::MaxUserNamespaces);
        }
        if limits && self.max_net_namespaces.is_some_and(|max| max < NET_NAMESPACES_NEEDED) {
            return Some(Setting::MaxNetNamespaces);
        }
        if limits && self.max_mnt_namespaces == Some(0) {
            return Some(Setting::MaxMntNamespaces);
        }
        if denied && !self.root && self.unprivileged_userns_clone == Some(0) {
            return Some(Setting::UnprivilegedUsernsClone);
        }
        if denied && !self.root && self.apparmor_restrict == Some(1) {
            return Some(Setting::ApparmorRestrict);
        }
        (denied && self.seccomp == Some(2)).then_some(Setting::Seccomp)
    }
}

/// The number behind `name` in /proc/self/status.
fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse().ok())
}

impl Forbidden {
    /// Judges `errno` of `step` by the settings of this machine.
    pub fn at(step: Step, errno: Errno) -> Self {
        Self::judge(step, errno, &Settings::read())
    }

    /// The same for an error of the standard library.
    pub fn at_io(step: Step, error: &io::Error) -> Self {
        Self::at(step, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// Judges `errno` of `step` by the given settings.
    pub fn judge(step: Step, errno: Errno, settings: &Settings) -> Self {
        Self { step, errno, setting: settings.explain(step, errno) }
    }
}

impl Setting {
    /// What it is set to and what to do about it.
    fn remedy(self) -> &'static str {
        match self {
            Setting::MaxUserNamespaces => {
                "user.max_user_namespaces is 0; allow them with: sudo sysctl -w user.max_user_namespaces=15000"
            }
            Setting::UnprivilegedUsernsClone => {
                "kernel.unprivileged_userns_clone is 0; allow it with: sudo sysctl -w kernel.unprivileged_userns_clone=1"
            }
            Setting::ApparmorRestrict => {
                "kernel.apparmor_restrict_unprivileged_userns is 1; allow it with: \
                 sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            }
            Setting::MaxNetNamespaces => {
                "user.max_net_namespaces is below 8; raise it with: sudo sysctl -w user.max_net_namespaces=15000"
            }
            Setting::MaxMntNamespaces => {
                "user.max_mnt_namespaces is 0; raise it with: sudo sysctl -w user.max_mnt_namespaces=15000"
            }
            Setting::Seccomp => {
                "a system call filter is active (Seccomp: 2 in /proc/self/status), as in a container; start the container \
                 with --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or with --privileged"
            }
            Setting::Threads => {
                "the process has more than one thread; namespaces must be entered before any is started"
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Unshare => "make user, network and mount namespaces",
            Step::MapIds => "map user and group ids into the user namespace",
            Step::Mount => "mount a private /run",
            Step::NetworkNamespace => "make a network namespace",
        })
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this machine does not let us {}: {}", self.step, io::Error::from(self.errno))?;
        match self.setting {
            Some(setting) => write!(f, "; {}", setting.remedy()),
            None => write!(f, "; no setting that we know explains it; as root it may work"),
        }
    }
}

impl std::error::Error for Forbidden {}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(step: Step, errno: Errno, settings: Settings) -> Option<Setting> {
        Forbidden::judge(step, errno, &settings).setting
    }

    /// A stock Debian 12 machine, as an ordinary user.
    const PERMISSIVE: Settings = Settings {
        root: false,
        max_user_namespaces: Some(63_000),
        max_net_namespaces: Some(63_000),
        max_mnt_namespaces: Some(63_000),
        unprivileged_userns_clone: Some(1),
        apparmor_restrict: None,
        seccomp: Some(0),
        threads: Some(1),
    };

    #[test]
    fn no_user_namespaces_allowed_at_all() {
        let settings = Settings { max_user_namespaces: Some(0), ..PERMISSIVE };
        assert_eq!(judged(Step::Unshare, Errno::NOSPC, settings), Some(Setting::MaxUserNamespaces));
    }

    #[test]
    fn debians_switch_counts_for_ordinary_users_only() {
        let settings = Settings { unprivileged_userns_clone: Some(0), ..PERMISSIVE };
        assert_eq!(judged(Step::Unshare, Errno::PERM, settings), Some(Setting::UnprivilegedUsernsClone));
        assert_eq!(judged(Step::Unshare, Errno::PERM, Settings { root: true, ..settings }), None);
    }

    #[test]
    fn ubuntus_switch_shows_at_the_id_map_too() {
        let settings = Settings { apparmor_restrict: Some(1), unprivileged_userns_clone: None, ..PERMISSIVE };
        assert_eq!(judged(Step::Unshare, Errno::PERM, settings), Some(Setting::ApparmorRestrict));
        assert_eq!(judged(Step::MapIds, Errno::ACCESS, settings), Some(Setting::ApparmorRestrict));
        assert_eq!(judged(Step::Unshare, Errno::PERM, Settings { apparmor_restrict: Some(0), ..settings }), None);
    }

    #[test]
    fn a_container_shows_by_its_system_call_filter() {
        let settings = Settings { root: true, seccomp: Some(2), ..PERMISSIVE };
        assert_eq!(judged(Step::Unshare, Errno::PERM, settings), Some(Setting::Seccomp));
        assert_eq!(judged(Step::Unshare, Errno::PERM, Settings { seccomp: Some(0), ..settings }), None);
    }

    #[test]
    fn eight_network_namespaces_are_enough() {
        let with = |max| Settings { max_net_namespaces: Some(max), ..PERMISSIVE };
        assert_eq!(judged(Step::NetworkNamespace, Errno::NOSPC, with(7)), Some(Setting::MaxNetNamespaces));
        assert_eq!(judged(Step::NetworkNamespace, Errno::NOSPC, with(8)), None);
    }

    #[test]
    fn threads_are_our_own_fault() {
        let settings = Settings { threads: Some(2), ..PERMISSIVE };
        assert_eq!(judged(Step::Unshare, Errno::INVAL, settings), Some(Setting::Threads));
        assert_eq!(judged(Step::Unshare, Errno::INVAL, PERMISSIVE), None);
    }

    #[test]
    fn message_names_the_setting_and_the_command() {
        let settings = Settings { max_user_namespaces: Some(0), ..PERMISSIVE };
        assert_eq!(
            Forbidden::judge(Step::Unshare, Errno::NOSPC, &settings).to_string(),
            "this machine does not let us make user, network and mount namespaces: No space left on device (os error 28); \
             user.max_user_namespaces is 0; allow them with: sudo sysctl -w user.max_user_namespaces=15000"
        );
    }

    #[test]
    fn fields_of_proc_status_are_found_by_their_whole_name() {
        let status = "Name:\tbaton\nThreads:\t3\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp:"), Some(2));
        assert_eq!(field(status, "Threads:"), Some(3));
        assert_eq!(field(status, "NoNewPrivs:"), None);
    }
}
