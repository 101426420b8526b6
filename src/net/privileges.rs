//! What a process gives up, so that whoever takes it over has nothing.

use std::ffi::CString;
use std::io;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// Looks a user up, as getpwnam(3) does. `Ok(None)` when there is no such user.
///
/// # Errors
/// What getpwnam_r(3) says.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let login = CString::new(name)?;
    let mut buffer = vec![0; 16 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to live buffers of the stated sizes; the call writes only there.
    let result = unsafe {
        libc::getpwnam_r(login.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    if found.is_null() {
        return Ok(None);
    }
    // SAFETY: a result of 0 with a non-null `found` means that the entry was filled in.
    let entry = unsafe { entry.assume_init() };
    Ok(Some(User { name: name.to_owned(), uid: entry.pw_uid, gid: entry.pw_gid }))
}

/// Users that a process becomes which nothing else is said of: ours, or else the one that every system has.
const USUAL_USERS: [&str; 2] = ["baton", "nobody"];

/// Gives up everything that can be given up: becomes `wanted`, or `baton` or else `nobody` where none is wanted, if we are
/// root, and [drops](drop_all) every capability. What could not be done and is no reason to stop is returned in words.
/// Must run while the process has one thread.
///
/// # Errors
/// `NotFound` when there is no such user as `wanted`; as [`drop_all`] for the capabilities.
pub fn give_up(wanted: Option<&str>) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    let user = if rustix::process::geteuid().is_root() { user_to_become(wanted, &mut warnings)? } else { None };
    let dropped = drop_all(user.as_ref());
    if let (Some(user), Err(error)) = (&user, &dropped) {
        // Inside a user namespace that maps one user there is no other to become; capabilities can still be given up.
        warnings.push(format!("cannot become user {} ({error}), so it keeps its user", user.name));
        drop_all(None)?;
    } else {
        dropped?;
    }
    Ok(warnings)
}

/// The user that [`give_up`] becomes; `None` where this process is not root, or there is none.
///
/// # Errors
/// As there.
pub fn unprivileged_user(wanted: Option<&str>) -> io::Result<Option<User>> {
    if rustix::process::geteuid().is_root() { user_to_become(wanted, &mut Vec::new()) } else { Ok(None) }
}

fn user_to_become(wanted: Option<&str>, warnings: &mut Vec<String>) -> io::Result<Option<User>> {
    if let Some(name) = wanted {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no user {name}"));
        return user(name)?.ok_or_else(missing).map(Some);
    }
    for name in USUAL_USERS {
        if let Some(user) = user(name)? {
            return Ok(Some(user));
        }
    }
    warnings.push("there is neither a user baton nor nobody, so it keeps its user".to_owned());
    Ok(None)
}

/// Gives up every capability and the way back to any, and becomes `user` when one is given (capabilities(7),
/// setuid(2)): `no_new_privs`, then the bounding set while it may still be changed, then groups, group and user, then
/// the ambient, inheritable, permitted and effective sets. Must run while the process has one thread.
///
/// # Errors
/// `InvalidInput` or `PermissionDenied` where the user namespace does not know the user; what prctl(2) or capset(2) says.
/// Without `CAP_SETPCAP` the bounding set stays, and `no_new_privs` keeps it from mattering.
pub fn drop_all(user: Option<&User>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // EINVAL: this kernel does not know the capability. EPERM: no CAP_SETPCAP, see above.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(user) = user {
        become_user(user)?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    match rustix::thread::set_capabilities(None, none) {
        // A filter on system calls forbids the change. What is inheritable alone cannot be used after no_new_privs.
        Err(rustix::io::Errno::PERM) if has_none()? => Ok(()),
        result => Ok(result?),
    }
}

/// Whether this thread can use no capability.
fn has_none() -> io::Result<bool> {
    let sets = rustix::thread::capabilities(None)?;
    Ok(sets.effective.is_empty() && sets.permitted.is_empty())
}

/// Has the program that this process is about to become start without capabilities, unless it is root: whoever is not
/// root keeps over execve(2) what is ambient, and nothing else (capabilities(7)). Calls prctl(2) alone.
///
/// # Errors
/// What prctl(2) says.
pub fn keep_none_over_exec() -> io::Result<()> {
    match rustix::thread::clear_ambient_capability_set() {
        // A kernel that knows no ambient set keeps nothing in any case.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Groups, group, user: in the order that still permits the next step.
fn become_user(user: &User) -> io::Result<()> {
    let checked = |result: i32| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: an empty list of groups is length 0 with an unused pointer.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes plain numbers.
    checked(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // SAFETY: takes plain numbers.
    checked(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })
}

/// Asks the kernel to kill this process when the thread that started it ends (`PR_SET_PDEATHSIG`, prctl(2)).
/// Any change of user or capabilities clears it again, so this comes last.
///
/// # Errors
/// `NotConnected` when the parent is gone already.
pub fn die_with_parent(parent_pid: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died between the fork and the line above, and then no signal will ever come.
    if std::os::unix::process::parent_id() == parent_pid {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotConnected, "the parent process is gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(user("root").unwrap().map(|user| user.uid), Some(0));
        assert_eq!(user("no-such-user-here").unwrap(), None);
    }
}
