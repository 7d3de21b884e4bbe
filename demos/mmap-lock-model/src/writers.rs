//! The operations that change an address space: with `mmap_lock` for writing, and each VMA that they change marked
//! by `Space::start_write`.

use std::ops::Range;
use std::sync::Arc;

use crate::service::Errno;
use crate::space::Space;
use crate::vma::Vma;

impl Space {
    /// `mmap`. A VMA that was touched has an `anon_vma`.
    ///
    /// # Panics
    /// Something is in the range.
    pub fn map(&self, range: Range<usize>, is_touched: bool) {
        self.write_lock();
        let above = self.find(range.start);
        let is_free = above.is_none_or(|vma| vma.bounds().start >= range.end);
        assert!(is_free, "something is mapped there");
        let vma = Vma::new(range.clone(), true, is_touched);
        self.tree().insert(range.end, (range.start, vma));
        self.write_unlock();
    }

    /// `munmap` of the VMA that contains `page`. With `event` (`UFFD_FEATURE_EVENT_UNMAP`), mappings are changing
    /// until the monitor has read of it, here at once.
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is none.
    pub fn unmap(&self, page: usize, event: bool) -> Result<(), Errno> {
        self.write_lock();
        let vma = self.lookup(page);
        if let Some(vma) = &vma {
            if event {
                self.userfault.begin_change();
            }
            self.start_write(vma);
            vma.detach();
            let bounds = vma.bounds();
            self.tree().remove(&bounds.end);
            self.zap(&bounds);
        }
        self.write_unlock();
        if event && vma.is_some() {
            self.userfault.end_change();
        }
        vma.map(drop).ok_or(Errno::Missing)
    }

    /// Splits the VMA that contains `page` before it (`split_vma`).
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is no VMA that begins below.
    pub fn split(&self, page: usize) -> Result<(), Errno> {
        self.write_lock();
        let vma = self.lookup(page).filter(|vma| vma.bounds().start < page);
        if let Some(vma) = &vma {
            self.start_write(vma);
            let Range { start, end } = vma.bounds();
            let upper = Vma::new(page..end, vma.is_writable(), vma.has_anon_vma());
            self.mark_written(&upper);
            vma.set_end(page);
            let mut tree = self.tree();
            tree.insert(page, (start, Arc::clone(vma)));
            tree.insert(end, (page, upper));
        }
        self.write_unlock();
        vma.map(drop).ok_or(Errno::Missing)
    }

    /// `mprotect` of the VMA that contains `page`; `hold` is what takes long under `mmap_lock`.
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is none.
    pub fn protect(&self, page: usize, is_writable: bool, hold: impl FnOnce()) -> Result<(), Errno> {
        self.write_lock();
        let vma = self.lookup(page);
        if let Some(vma) = &vma {
            self.start_write(vma);
            vma.set_writable(is_writable);
            hold();
        }
        self.write_unlock();
        vma.map(drop).ok_or(Errno::Missing)
    }
}
