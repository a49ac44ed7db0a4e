//! Looks up struct members, function prototypes and enum values in the running kernel's BTF.
//!
//! Layout: include/uapi/linux/btf.h, Documentation/bpf/btf.rst. `aya-obj` parses BTF, too, but does
//! not expose members, prototypes and enum values.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, anyhow, bail};

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Deepest nesting of modifiers, typedefs and anonymous members that is followed.
const MAX_DEPTH: u32 = 32;

/// The type of a function parameter, as far as the probes distinguish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// A pointer to a struct of this name.
    StructPtr(String),
    /// Any other pointer.
    Ptr,
    /// An integer, enum or anything passed by value.
    Value,
}

/// An index of structs, functions and typedefs in a BTF blob.
pub struct Types {
    data: Vec<u8>,
    strings: usize,
    /// Byte position of each type; entry 0 is `void`.
    types: Vec<u32>,
    structs: HashMap<String, Vec<u32>>,
    funcs: HashMap<String, u32>,
    typedefs: HashMap<String, u32>,
}

impl Types {
    /// Indexes only the names that `wanted` accepts, because a kernel has a hundred thousand types.
    ///
    /// # Errors
    /// If the blob is not little-endian BTF of a known version or is damaged.
    pub fn parse(data: Vec<u8>, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let word = |at: usize| word_at(&data, at).ok_or_else(|| anyhow!("BTF is truncated"));
        if data.get(..2) != Some(&[0x9f, 0xeb]) {
            bail!("not BTF of this machine's byte order (magic {:02x?})", data.get(..2));
        }
        let header = word(4)? as usize;
        let start = header + word(8)? as usize;
        let end = start + word(12)? as usize;
        let strings = header + word(16)? as usize;
        let mut index = Self {
            strings,
            types: vec![0],
            structs: HashMap::new(),
            funcs: HashMap::new(),
            typedefs: HashMap::new(),
            data: Vec::new(),
        };
        let mut at = start;
        while at < end {
            let info = word(at + 4)?;
            let kind = (info >> 24) & 0x1f;
            let map = match kind {
                KIND_STRUCT | KIND_FUNC | KIND_TYPEDEF => {
                    let name = str_at(&data, strings + word(at)? as usize).unwrap_or("");
                    wanted(name).then(|| name.to_owned())
                }
                _ => None,
            };
            let id = u32::try_from(index.types.len())?;
            match (kind, map) {
                (KIND_STRUCT, Some(name)) => index.structs.entry(name).or_default().push(id),
                (KIND_FUNC, Some(name)) => {
                    index.funcs.insert(name, id);
                }
                (KIND_TYPEDEF, Some(name)) => {
                    index.typedefs.insert(name, id);
                }
                _ => {}
            }
            index.types.push(u32::try_from(at)?);
            at += 12 + tail_len(kind, info & 0xffff)?;
        }
        index.data = data;
        Ok(index)
    }

    /// The BTF, in which only indexed functions, structs and typedefs have a name. Types keep their
    /// ids. aya compares with the name of each type until it finds a function; a blank one takes a
    /// tenth of the time.
    #[must_use]
    pub fn with_indexed_names(&self) -> Vec<u8> {
        let indexed = self.structs.values().flatten().chain(self.funcs.values());
        let indexed: HashSet<u32> = indexed.chain(self.typedefs.values()).copied().collect();
        let mut data = self.data.clone();
        for (id, &at) in (0..).zip(&self.types).skip(1) {
            let at = at as usize;
            let kind = word_at(&data, at + 4).map(|info| (info >> 24) & 0x1f);
            let names = matches!(kind, Some(KIND_STRUCT | KIND_FUNC | KIND_TYPEDEF));
            if names && !indexed.contains(&id) {
                data[at..at + 4].fill(0);
            }
        }
        data
    }

    /// True if this kernel has a traceable function with this name.
    #[must_use]
    pub fn has_func(&self, name: &str) -> bool {
        self.funcs.contains_key(name)
    }

    /// The BTF id of a struct.
    #[must_use]
    pub fn struct_id(&self, name: &str) -> Option<u32> {
        self.structs.get(name)?.first().copied()
    }

    /// The BTF id of a function.
    #[must_use]
    pub fn func_id(&self, name: &str) -> Option<u32> {
        self.funcs.get(name).copied()
    }

    /// The parameters of a function; `None` if there is no such function.
    #[must_use]
    pub fn func_params(&self, name: &str) -> Option<Vec<Param>> {
        let func = *self.funcs.get(name)?;
        self.params(self.target(func)?)
    }

    /// The arguments of a tracepoint, without the leading `void *__data`. They come from the
    /// typedef `btf_trace_NAME` that the kernel has for each tracepoint
    /// (include/trace/bpf_probe.h).
    #[must_use]
    pub fn tracepoint_params(&self, name: &str) -> Option<Vec<Param>> {
        let typedef = *self.typedefs.get(&format!("btf_trace_{name}"))?;
        let proto = self.target(self.strip(self.target(typedef)?)?)?;
        let mut params = self.params(proto)?;
        if params.is_empty() {
            return None;
        }
        params.remove(0);
        Some(params)
    }

    /// Byte offset of a struct member, including members of nested anonymous structs and unions.
    ///
    /// # Errors
    /// If no struct of this name has the member, several have it at different offsets, or it is a
    /// bit field.
    pub fn offset(&self, name: &str, member: &str) -> Result<u32> {
        let ids = self.structs.get(name).with_context(|| format!("no struct {name} in BTF"))?;
        let mut found: Vec<u32> =
            ids.iter().filter_map(|&id| self.member_bits(id, member, 0)).collect();
        found.dedup();
        match found[..] {
            [bits] if bits % 8 == 0 => Ok(bits / 8),
            [_] => bail!("{name}.{member} is a bit field"),
            [] => bail!("struct {name} has no member {member}"),
            _ => bail!("several structs {name} have {member} at different offsets"),
        }
    }

    /// Size of a struct in bytes; `None` if there is none, or several of this name differ in size.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u32> {
        let mut sizes = self.structs.get(name)?.iter().map(|&id| {
            let at = *self.types.get(id as usize)? as usize;
            word_at(&self.data, at + 8)
        });
        let first = sizes.next()??;
        sizes.all(|size| size == Some(first)).then_some(first)
    }

    /// Value of an enumerator of any enum in the kernel. Slow: this scans all enums.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        self.types.iter().skip(1).find_map(|&at| {
            let at = at as usize;
            let info = self.word(at + 4)?;
            if (info >> 24) & 0x1f != KIND_ENUM {
                return None;
            }
            (0..(info & 0xffff) as usize)
                .map(|i| at + 12 + 8 * i)
                .find(|&v| self.word(v).and_then(|o| self.string(o)) == Some(name))
                .and_then(|v| self.word(v + 4))
        })
    }

    fn word(&self, at: usize) -> Option<u32> {
        word_at(&self.data, at)
    }

    fn string(&self, offset: u32) -> Option<&str> {
        str_at(&self.data, self.strings + offset as usize)
    }

    /// (position, kind, vlen, kind_flag) of a type.
    fn head(&self, id: u32) -> Option<(usize, u32, usize, bool)> {
        if id == 0 {
            return None; // void
        }
        let at = *self.types.get(id as usize)? as usize;
        let info = self.word(at + 4)?;
        Some((at, (info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 != 0))
    }

    /// The type that a FUNC, PTR, typedef or modifier refers to.
    fn target(&self, id: u32) -> Option<u32> {
        let (at, ..) = self.head(id)?;
        self.word(at + 8)
    }

    /// Follows typedefs and modifiers to the underlying type.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            match self.head(id)?.1 {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = self.target(id)?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn params(&self, proto: u32) -> Option<Vec<Param>> {
        let (at, kind, vlen, _) = self.head(proto)?;
        if kind != KIND_FUNC_PROTO {
            return None;
        }
        (0..vlen).map(|i| Some(self.param(self.word(at + 12 + 8 * i + 4)?))).collect()
    }

    fn param(&self, id: u32) -> Param {
        let Some(id) = self.strip(id) else { return Param::Value };
        if self.head(id).is_none_or(|h| h.1 != KIND_PTR) {
            return Param::Value;
        }
        self.target(id)
            .and_then(|t| self.strip(t))
            .and_then(|t| {
                let (at, kind, ..) = self.head(t)?;
                (kind == KIND_STRUCT).then(|| self.string(self.word(at)?))?
            })
            .map_or(Param::Ptr, |name| Param::StructPtr(name.to_owned()))
    }

    fn member_bits(&self, id: u32, member: &str, depth: u32) -> Option<u32> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (at, kind, vlen, kind_flag) = self.head(self.strip(id)?)?;
        if !matches!(kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        (0..vlen).map(|i| at + 12 + 12 * i).find_map(|m| {
            let name = self.string(self.word(m)?)?;
            let mut bits = self.word(m + 8)?;
            if kind_flag {
                bits &= 0x00ff_ffff; // the upper byte is a bit-field size
            }
            if name == member {
                return Some(bits);
            }
            if name.is_empty() {
                let inner = self.member_bits(self.word(m + 4)?, member, depth + 1)?;
                return Some(bits + inner);
            }
            None
        })
    }
}

fn word_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn str_at(data: &[u8], at: usize) -> Option<&str> {
    let rest = data.get(at..)?;
    let end = rest.iter().position(|&b| b == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// Bytes that follow the common 12-byte header of a type (`struct btf_type`).
fn tail_len(kind: u32, vlen: u32) -> Result<usize> {
    let vlen = vlen as usize;
    Ok(match kind {
        KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT
        | KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => 0,
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * vlen,
        KIND_ENUM | KIND_FUNC_PROTO => 8 * vlen,
        other => bail!("BTF kind {other} is newer than this program: please report it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF blob of hand-made types: name offset, kind, vlen, size-or-type, tail words.
    fn blob(strings: &str, types: &[(u32, u32, u32, u32, &[u32])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, kind, vlen, size, tail) in types {
            for w in [*name, kind << 24 | vlen, *size].iter().chain(*tail) {
                body.extend(w.to_le_bytes());
            }
        }
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for w in [24, 0, body.len() as u32, body.len() as u32, strings.len() as u32] {
            out.extend(w.to_le_bytes());
        }
        out.extend(body);
        out.extend(strings.as_bytes());
        out
    }

    // "\0outer\0a\0b\0f\0io_uring_cqe\0"
    const STRINGS: &str = "\0outer\0a\0b\0f\0cqe\0";

    fn sample() -> Types {
        let types: &[(u32, u32, u32, u32, &[u32])] = &[
            (0, KIND_INT, 0, 4, &[32]),                   // 1 int
            (0, KIND_UNION, 1, 4, &[9, 1, 0]),            // 2 union { int b }
            (1, KIND_STRUCT, 2, 8, &[7, 1, 0, 0, 2, 32]), // 3 struct outer
            (13, KIND_STRUCT, 0, 4, &[]),                 // 4 struct cqe
            (0, KIND_PTR, 0, 4, &[]),                     // 5 cqe *
            (0, KIND_FUNC_PROTO, 2, 0, &[0, 5, 0, 1]),    // 6 (cqe *, int)
            (11, KIND_FUNC, 0, 6, &[]),                   // 7 f
        ];
        Types::parse(blob(STRINGS, types), |_| true).unwrap()
    }

    #[test]
    fn offsets_go_through_anonymous_members() {
        let types = sample();
        assert_eq!(types.offset("outer", "a").unwrap(), 0);
        assert_eq!(types.offset("outer", "b").unwrap(), 4);
        assert!(types.offset("outer", "c").is_err());
        assert!(types.size("outer").is_some() && types.size("nothing").is_none());
        assert!(types.offset("nothing", "a").is_err());
    }

    #[test]
    fn names_that_are_not_indexed_are_blank_and_ids_stay() {
        let all = sample();
        let few = Types::parse(all.data.clone(), |name| name == "f").unwrap();
        let blank = Types::parse(few.with_indexed_names(), |_| true).unwrap();
        assert_eq!(blank.func_id("f"), all.func_id("f"));
        assert!(all.struct_id("outer").is_some() && blank.struct_id("outer").is_none());
    }

    #[test]
    fn prototypes_tell_struct_pointers_from_values() {
        let params = sample().func_params("f").unwrap();
        assert_eq!(params, [Param::StructPtr("cqe".into()), Param::Value]);
        assert_eq!(sample().func_params("g"), None);
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let whole = blob(STRINGS, &[(1, KIND_STRUCT, 1, 8, &[7, 1, 0])]);
        for cut in 0..whole.len() {
            if let Ok(types) = Types::parse(whole[..cut].to_vec(), |_| true) {
                let _ = types.offset("outer", "a");
            }
        }
        assert!(Types::parse(blob("\0", &[(0, 31, 0, 0, &[])]), |_| true).is_err());
    }
}
