//! The processor time of a process, from the kernel's accounting.

/// Processor time that the process has used, threads that have ended included, in nanoseconds.
///
/// The process's own clock: `/proc/PID/stat` counts hundredths of a second, too coarse for short
/// measurements, and `/proc/PID/task/*/schedstat` forgets threads that have ended.
pub fn cpu_ns(pid: u32) -> Result<u64, String> {
    let failed = |what: &str| {
        let error = std::io::Error::last_os_error();
        format!("{what} of process {pid}: {error}")
    };
    let pid_t = libc::pid_t::try_from(pid).map_err(|e| e.to_string())?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a live clockid_t, which the call fills.
    if unsafe { libc::clock_getcpuclockid(pid_t, &raw mut clock) } != 0 {
        return Err(failed("the processor clock"));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec, which the call fills.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(failed("the processor time"));
    }
    let [seconds, ns] = [time.tv_sec, time.tv_nsec].map(|n| u64::try_from(n).unwrap_or(0));
    Ok(seconds * 1_000_000_000 + ns)
}
