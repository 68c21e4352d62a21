//! How much memory there is.

/// Bytes of memory that the machine, or the control group of this process, has; 8 GiB where neither is said.
pub(super) fn of_machine() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    // In a container the group's limit is the one that kills.
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|t| t.trim().parse().ok());
    match (total, limit) {
        (Some(total), Some(limit)) => u64::min(total, limit),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => 8 << 30,
    }
}

/// The bytes that `/proc/meminfo` gives as `MemTotal`.
fn total_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_what_linux_says() {
        assert_eq!(total_of("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24576 * 1024));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
    }
}
