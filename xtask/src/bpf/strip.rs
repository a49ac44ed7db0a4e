//! Removes the debug information from the eBPF object. BTF stays, because the loader needs it.
use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};

/// Returns the object without its `.debug_*` sections and the relocations for them.
pub(crate) fn debug(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(bytes).context("not an ELF object")?;
    let is_debug = |name: &[u8]| {
        [b".debug_".as_slice(), b".rel.debug_", b".rela.debug_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let mut names = false;
    for section in &mut elf.sections {
        section.delete |= is_debug(&section.name);
        names |= matches!(section.data, SectionData::SectionString);
    }
    // LLVM keeps section and symbol names in one table; the builder needs a table for each.
    if !names {
        let section = elf.sections.add();
        section.name = b".shstrtab".as_slice().into();
        section.sh_type = object::elf::SHT_STRTAB;
        section.sh_addralign = 1;
        section.data = SectionData::SectionString;
    }
    elf.delete_orphans();
    let mut out = Vec::new();
    elf.write(&mut out).context("cannot write the ELF object")?;
    Ok(out)
}
