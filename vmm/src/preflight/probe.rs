//! Guests of a few bytes, run directly on KVM, without Cloud Hypervisor.
//!
//! ```text
//! address   0x1000 PML4 ─► 0x2000 PDPT ─► 0x3000 PD (0 … 2 MiB)   0x5000 GDT   0x10000 code
//!                                     └─► 0x4000 PD (3 … 4 GiB)   0x6000 IDT   0x11000 handler
//! ```
//! There is no interrupt controller in the kernel, so `hlt` comes back here instead of sleeping.

use std::fmt;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::sys::GuestMemory;

/// The longest a guest may run; tens of microseconds are usual.
const LIMIT: Duration = Duration::from_secs(5);
/// Guest memory, one large page.
const MEMORY: usize = 2 << 20;
const CODE: usize = 0x1_0000;
const HANDLER: usize = 0x1_1000;
const STACK: u64 = 0x8000;
/// Where guests leave a mark.
const MARK: u64 = 0x2_0000;
/// An address without memory, so that a write to it comes back here.
const MMIO: u64 = 0xd000_0000;
const COM1: u16 = 0x3f8;

/// The guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// 16-bit code: adds, prints, writes memory.
    RealMode,
    /// 64-bit code with paging: shifts, prints, writes memory and a device.
    LongMode,
    /// What every stock Linux kernel does while it boots: a breakpoint and the return from it (the
    /// kernel tests both, and patches itself by them), and SSE registers.
    KernelMode,
}

/// What a guest came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did what real hardware would.
    Passed,
    /// It did something else: what it did before, and what then.
    Failed(String),
    /// It did not end.
    Hung,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(how) => f.write_str(how),
            Self::Hung => write!(f, "did not end within {LIMIT:?}"),
        }
    }
}

/// Everything a guest is expected to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Print(u8),
    Device([u8; 4]),
    Halt,
}

impl Probe {
    /// All of them, the simplest first.
    pub const ALL: [Self; 3] = [Self::RealMode, Self::LongMode, Self::KernelMode];

    /// Runs it on `kvm`'s device. A guest that never ends keeps its thread until this process ends:
    /// nothing but a signal could get it out of KVM, and a library installs no signal handlers.
    pub(super) fn run(self, kvm: Kvm) -> Outcome {
        let (done, result) = mpsc::channel();
        let spawned = std::thread::Builder::new()
            .name("kvm-probe".to_owned())
            .spawn(move || {
                // Nobody listens any more once the limit is over.
                let _late =
                    done.send(Machine::new(&kvm, self).and_then(|mut machine| machine.run(self)));
            });
        if let Err(error) = spawned {
            return Outcome::Failed(format!("no thread: {error}"));
        }
        match result.recv_timeout(LIMIT) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Hung,
        }
    }

    fn code(self) -> &'static [u8] {
        match self {
            Self::RealMode => &[
                0xba, 0xf8, 0x03, // mov dx, 0x3f8
                0x00, 0xd8, // add al, bl
                0x04, b'0', // add al, '0'
                0xee, // out dx, al
                0xc6, 0x05, 0x5a, // mov byte [di], 0x5a
                0xf4, // hlt
            ],
            Self::LongMode => &[
                0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x41, // mov rax, …
                0x48, 0xc1, 0xe8, 0x38, // shr rax, 56
                0xee, // out dx, al
                0xc6, 0x07, 0x5a, // mov byte [rdi], 0x5a
                0x89, 0x06, // mov [rsi], eax
                0xf4, // hlt
            ],
            Self::KernelMode => &[
                0xcc, // int3; its handler prints I
                0xb0, b'B', 0xee, // mov al, 'B'; out dx, al
                0x66, 0x48, 0x0f, 0x6e, 0xc7, // movq xmm0, rdi
                0xb0, b'X', 0xee, // mov al, 'X'; out dx, al
                0xc6, 0x07, 0x5a, // mov byte [rdi], 0x5a
                0xf4, // hlt
            ],
        }
    }

    fn expected(self) -> Vec<Step> {
        use Step::{Device, Halt, Print};
        match self {
            Self::RealMode => vec![Print(b'5'), Halt],
            Self::LongMode => vec![Print(b'A'), Device([b'A', 0, 0, 0]), Halt],
            Self::KernelMode => {
                vec![Print(b'I'), Print(b'B'), Print(b'X'), Halt]
            }
        }
    }

    /// The instruction that the guest executes after `done` steps, for messages.
    fn at(self, done: usize) -> &'static str {
        match (self, done) {
            (Self::KernelMode, 0) => "int3 (a breakpoint)",
            (Self::KernelMode, 1) => "iretq (the return from a breakpoint)",
            (Self::KernelMode, 2) => "movq to an SSE register",
            (Self::RealMode, _) => "16-bit code",
            (Self::LongMode | Self::KernelMode, _) => "64-bit code",
        }
    }
}

/// Fields drop in this order: the vCPU and the VM before their memory.
struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: GuestMemory,
}

impl Machine {
    fn new(kvm: &Kvm, probe: Probe) -> io::Result<Self> {
        let vm = kvm.create_vm().map_err(os)?;
        let mut memory = GuestMemory::new(MEMORY)?;
        memory.map(&vm)?;
        memory.write(CODE, probe.code());
        let vcpu = vm.create_vcpu(0).map_err(os)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(os)?;
        vcpu.set_cpuid2(&cpuid).map_err(os)?;
        match probe {
            Probe::RealMode => real_mode(&vcpu)?,
            Probe::LongMode | Probe::KernelMode => long_mode(&vcpu, &mut memory)?,
        }
        Ok(Self {
            vcpu,
            _vm: vm,
            memory,
        })
    }

    fn run(&mut self, probe: Probe) -> io::Result<Outcome> {
        let expected = probe.expected();
        for (done, expected) in expected.iter().enumerate() {
            let seen = match self.vcpu.run().map_err(os)? {
                VcpuExit::IoOut(COM1, &[byte]) => Ok(Step::Print(byte)),
                VcpuExit::MmioWrite(MMIO, bytes) => match bytes.try_into() {
                    Ok(bytes) => Ok(Step::Device(bytes)),
                    Err(_) => Err("a device write of another size".to_owned()),
                },
                VcpuExit::Hlt => Ok(Step::Halt),
                other => Err(format!("{other:?}")),
            };
            if seen.as_ref() != Ok(expected) {
                let seen = seen.map_or_else(|other| other, |step| format!("{step:?}"));
                return Ok(Outcome::Failed(format!(
                    "stopped at {}: {seen}",
                    probe.at(done)
                )));
            }
        }
        Ok(
            match self.memory.read(usize::try_from(MARK).unwrap_or_default()) {
                0x5a => Outcome::Passed,
                other => Outcome::Failed(format!("memory holds {other:#x} in place of 0x5a")),
            },
        )
    }
}

fn real_mode(vcpu: &VcpuFd) -> io::Result<()> {
    let mut sregs = vcpu.get_sregs().map_err(os)?;
    for (segment, base) in [(&mut sregs.cs, CODE as u64), (&mut sregs.ds, MARK)] {
        segment.base = base;
        segment.selector = u16::try_from(base >> 4).unwrap_or_default();
    }
    vcpu.set_sregs(&sregs).map_err(os)?;
    let mut regs = vcpu.get_regs().map_err(os)?;
    (regs.rip, regs.rflags, regs.rax, regs.rbx, regs.rdi) = (0, 2, 2, 3, 0);
    vcpu.set_regs(&regs).map_err(os)
}

fn long_mode(vcpu: &VcpuFd, memory: &mut GuestMemory) -> io::Result<()> {
    const TABLE: u64 = 0b11; // present, writable
    const LARGE: u64 = 0x83; // … and a page of 2 MiB
    let mut word = |address: usize, value: u64| memory.write(address, &value.to_le_bytes());
    word(0x1000, 0x2000 | TABLE);
    word(0x2000, 0x3000 | TABLE);
    word(0x2018, 0x4000 | TABLE);
    word(0x3000, LARGE);
    for (page, entry) in (0x4000..0x5000).step_by(8).enumerate() {
        word(entry, (0xc000_0000 + ((page as u64) << 21)) | LARGE);
    }
    word(0x5008, 0x00af_9b00_0000_ffff); // 0x08: 64-bit code
    word(0x5010, 0x00cf_9300_0000_ffff); // 0x10: data
    let handler = HANDLER as u64;
    let gate = (handler & 0xffff) | (8 << 16) | (0x8e00 << 32) | ((handler >> 16) << 48);
    for vector in 0..32 {
        word(0x6000 + vector * 16, gate);
    }
    // mov al, 'I'; out dx, al; iretq
    memory.write(HANDLER, &[0xb0, b'I', 0xee, 0x48, 0xcf]);

    let segment = |selector: u16, kind: u8, long: u8| kvm_segment {
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..kvm_segment::default()
    };
    let mut sregs = vcpu.get_sregs().map_err(os)?;
    sregs.cs = segment(0x08, 11, 1);
    let data = segment(0x10, 3, 0);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (0x5000, 0x17);
    (sregs.idt.base, sregs.idt.limit) = (0x6000, 32 * 16 - 1);
    sregs.cr3 = 0x1000;
    sregs.cr0 = 0x8000_0033; // paging, numeric errors, protection
    sregs.cr4 = 0x620; // physical address extension, SSE with its exceptions
    sregs.efer = 0x500; // long mode, enabled and active
    vcpu.set_sregs(&sregs).map_err(os)?;
    let mut regs = vcpu.get_regs().map_err(os)?;
    (regs.rip, regs.rflags, regs.rsp) = (CODE as u64, 2, STACK);
    (regs.rdx, regs.rdi, regs.rsi) = (COM1.into(), MARK, MMIO);
    vcpu.set_regs(&regs).map_err(os)
}

fn os(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
