// SPDX-License-Identifier: Apache-2.0

package abi

// ELF notes of a PV kernel, elfnote.h.
const (
	NoteOwner         = "Xen"
	NoteEntry         = 1
	NoteHypercallPage = 2
	NoteVirtBase      = 3
	NotePaddrOffset   = 4
	NoteXenVersion    = 5
	NoteGuestOS       = 6
	NoteInitP2M       = 15
	NoteModStartPFN   = 16
	NotePhys32Entry   = 18
)

// struct start_info, xen.h.
const (
	SizeofStartInfo       = 1168
	StartInfoMagic        = 0
	StartInfoNrPages      = 32
	StartInfoSharedInfo   = 40
	StartInfoFlags        = 48
	StartInfoStoreMFN     = 56
	StartInfoStoreEvtchn  = 64
	StartInfoConsMFN      = 72
	StartInfoConsEvtchn   = 80
	StartInfoPTBase       = 88
	StartInfoNrPTFrames   = 96
	StartInfoMFNList      = 104
	StartInfoModStart     = 112
	StartInfoModLen       = 120
	StartInfoCmdLine      = 128
	StartInfoCmdLineSize  = 1024
	StartInfoFirstP2MPFN  = 1152
	StartInfoNrP2MFrames  = 1160
	StartInfoMagicString  = "xen-3.0-x86_64"
	StartInfoModStartPFN  = 1 << 3 // SIF_MOD_START_PFN
	StartInfoMaxCmdLength = StartInfoCmdLineSize - 1
)

// StartInfo is struct start_info as far as an unprivileged domain without
// XenStore has a use for it.
type StartInfo struct {
	NrPages     uint64
	SharedInfo  MFN
	Flags       uint32
	StoreMFN    MFN // NoXS: the device page; the store's port stays 0
	ConsoleMFN  MFN
	ConsolePort Port
	PTBase      VAddr
	NrPTFrames  uint64
	MFNList     VAddr
	ModStart    uint64 // a PFN if Flags has StartInfoModStartPFN, else a VAddr
	ModLen      uint64 // bytes
	CmdLine     string // at most StartInfoMaxCmdLength bytes
	FirstP2MPFN PFN
	NrP2MFrames uint64
}

// Put encodes s at the start of page, which it clears.
func (s StartInfo) Put(page []byte) {
	clear(page)
	copy(page[StartInfoMagic:], StartInfoMagicString)
	le.PutUint64(page[StartInfoNrPages:], s.NrPages)
	le.PutUint64(page[StartInfoSharedInfo:], s.SharedInfo.Addr())
	le.PutUint32(page[StartInfoFlags:], s.Flags)
	le.PutUint64(page[StartInfoStoreMFN:], uint64(s.StoreMFN))
	le.PutUint64(page[StartInfoConsMFN:], uint64(s.ConsoleMFN))
	le.PutUint32(page[StartInfoConsEvtchn:], uint32(s.ConsolePort))
	le.PutUint64(page[StartInfoPTBase:], uint64(s.PTBase))
	le.PutUint64(page[StartInfoNrPTFrames:], s.NrPTFrames)
	le.PutUint64(page[StartInfoMFNList:], uint64(s.MFNList))
	le.PutUint64(page[StartInfoModStart:], s.ModStart)
	le.PutUint64(page[StartInfoModLen:], s.ModLen)
	copy(page[StartInfoCmdLine:StartInfoCmdLine+StartInfoMaxCmdLength], s.CmdLine)
	le.PutUint64(page[StartInfoFirstP2MPFN:], uint64(s.FirstP2MPFN))
	le.PutUint64(page[StartInfoNrP2MFrames:], s.NrP2MFrames)
}

// struct shared_info and struct vcpu_info, xen.h.
const (
	SizeofSharedInfo = 3136
	SizeofVCPUInfo   = 64
	LegacyVCPUs      = 32
	VCPUUpcallMask   = 1
)

// PutSharedInfo clears a domain's shared page and masks events on every virtual
// CPU that has its vcpu_info there, as a kernel expects at its entry.
func PutSharedInfo(page []byte) {
	clear(page)
	for i := range LegacyVCPUs {
		page[i*SizeofVCPUInfo+VCPUUpcallMask] = 1
	}
}

// struct vcpu_guest_context and struct cpu_user_regs, arch-x86/xen.h.
const (
	SizeofVCPUGuestContext = 5168
	ContextFlags           = 512
	ContextUserRegs        = 520
	ContextKernelSS        = 4968
	ContextKernelSP        = 4976
	ContextCtrlReg         = 4984
	ContextDebugReg        = 5048

	SizeofUserRegs = 200
	RegRSI         = 104
	RegRIP         = 128
	RegCS          = 136
	RegRFlags      = 144
	RegRSP         = 152
	RegSS          = 160

	ContextInKernel = 1 << 2 // VGCF_in_kernel
	ContextOnline   = 1 << 5 // VGCF_online

	FlatKernelCS = 0xe033
	FlatKernelSS = 0xe02b
)

// EntryContext is the state in which the first virtual CPU enters a kernel.
type EntryContext struct {
	RIP VAddr // the kernel's entry
	RSP VAddr // end of the boot stack
	RSI VAddr // start_info
	CR3 MFN   // the pinned top-level page table
}

// Put encodes struct vcpu_guest_context.
func (c EntryContext) Put(b []byte) {
	clear(b[:SizeofVCPUGuestContext])
	le.PutUint32(b[ContextFlags:], ContextInKernel|ContextOnline)
	regs := b[ContextUserRegs:]
	le.PutUint64(regs[RegRSI:], uint64(c.RSI))
	le.PutUint64(regs[RegRIP:], uint64(c.RIP))
	le.PutUint16(regs[RegCS:], FlatKernelCS)
	le.PutUint64(regs[RegRFlags:], 1<<9)
	le.PutUint64(regs[RegRSP:], uint64(c.RSP))
	le.PutUint16(regs[RegSS:], FlatKernelSS)
	le.PutUint64(b[ContextKernelSS:], FlatKernelSS)
	le.PutUint64(b[ContextKernelSP:], uint64(c.RSP))
	le.PutUint64(b[ContextCtrlReg+3*8:], c.CR3.Addr())
	le.PutUint64(b[ContextDebugReg+6*8:], 0xffff0ff0)
	le.PutUint64(b[ContextDebugReg+7*8:], 0x400)
}

// struct xencons_interface, io/console.h.
const (
	SizeofConsole  = 3088
	ConsoleIn      = 0
	ConsoleInSize  = 1024
	ConsoleOut     = 1024
	ConsoleOutSize = 2048
	ConsoleInCons  = 3072
	ConsoleInProd  = 3076
	ConsoleOutCons = 3080
	ConsoleOutProd = 3084
)

// Page-table entry bits of x86.
const (
	PTEPresent  = 1 << 0
	PTEWritable = 1 << 1
	PTEUser     = 1 << 2
	PTEAccessed = 1 << 5
	PTEDirty    = 1 << 6
)
