//! The unix socket at which the next process asks for a takeover.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

/// Processes that wait to ask; one is answered at a time.
const BACKLOG: i32 = 8;

/// A listening socket and its place in the file system.
#[derive(Debug)]
pub struct Hatch {
    pub(super) listener: UnixListener,
    pub(super) place: Place,
}

/// Where the socket can be found. Dropped, nobody finds it any more, unless it is somebody else's.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and number of the file; `None`: it is not ours to remove.
    file: Option<(u64, u64)>,
}

impl Hatch {
    /// Listens at `path`, in the place of a socket that a process left behind. The socket is whole,
    /// and for our user alone, before it can be found.
    ///
    /// # Errors
    /// The directory cannot be written, or something other than a socket is there.
    pub fn open(path: &Path) -> io::Result<Hatch> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let what = format!("{} is no socket", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut fresh = OsString::from(path);
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        // One that another process of the same number left.
        drop(fs::remove_file(&fresh));
        let address = SocketAddrUnix::new(&fresh)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &address)?;
        let opened = fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| Ok(listen(&socket, BACKLOG)?))
            .and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = opened {
            drop(fs::remove_file(&fresh));
            return Err(error);
        }
        Ok(Hatch {
            listener: socket.into(),
            place: Place::of(path),
        })
    }

    /// One that another process handed over.
    pub(super) fn inherited(listener: UnixListener, path: &Path) -> io::Result<Hatch> {
        listener.set_nonblocking(true)?;
        Ok(Hatch {
            listener,
            place: Place::of(path),
        })
    }
}

impl Place {
    fn of(path: &Path) -> Place {
        Place {
            path: path.to_owned(),
            file: file(path),
        }
    }

    /// Somebody else listens there from now on.
    pub(super) fn leave(mut self) {
        self.file = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.file.is_some() && file(&self.path) == self.file {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_is_for_our_user_alone_and_gone_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hatch");
        let hatch = Hatch::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(hatch);
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_was_left_behind_is_replaced_and_a_successors_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hatch");
        let first = Hatch::open(&path).unwrap();
        let second = Hatch::open(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        second.place.leave();
        assert!(path.exists());
    }

    #[test]
    fn nothing_but_a_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = Hatch::open(&path).unwrap_err().to_string();
        assert!(error.contains("precious is no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
        assert!(Hatch::open(&directory.path().join("none/hatch")).is_err());
    }
}
