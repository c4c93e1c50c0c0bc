#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Memory failure under a mount, one block of the pool after the other.

poison.py make MNT                      the files
poison.py try MNT UMBRACTL SEED LBA...  each block fails in turn, with a reader, a writer and a mapping at work
poison.py flip MNT UMBRACTL SEED         bits of metadata change
poison.py burst MNT UMBRACTL SEED        many blocks fail at once; nothing is looked at
poison.py look MNT UMBRACTL             everything is as it was made, but for what health calls lost
"""
import collections
import errno
import fcntl
import json
import mmap
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import time

B = 4096
# The daemon's ioctls, see src/fuse/ioctl.h.
POISON, TEXT, MAP, SCRUB = 0x40105520, 0xe0105502, 0xe0185503, 0xc0285513
PAGES = {'plain': 200, 'shared': 200, 'sparse': 90, 'own': 40, 'dir/deep': 20}
NAMES = 300


def fail(*what):
    print('FAIL:', *what)
    sys.exit(1)


def content(name, page):
    if name == 'shared':
        name = 'plain'
    if name == 'sparse' and page % 2:
        return bytes(B)
    return (('%s %d ' % (name, page)).encode() * 1000)[:B]


def make(mnt):
    os.mkdir(mnt + '/dir')
    for name, pages in PAGES.items():
        if name == 'shared':
            continue
        with open(mnt + '/' + name, 'wb') as f:
            for page in range(pages):
                if name != 'sparse' or page % 2 == 0:
                    f.seek(page * B)
                    f.write(content(name, page))
            f.truncate(pages * B)
    for i in range(NAMES):
        open('%s/dir/a-name-that-takes-some-room-%d' % (mnt, i), 'w').close()
    os.setxattr(mnt + '/plain', 'user.big', b'v' * 3000)


class Mount:
    def __init__(self, mnt, umbractl):
        self.mnt, self.umbractl = mnt, umbractl
        self.fd = os.open(mnt, os.O_RDONLY)
        # Then a page of data is not lost: parity has it, or the file below.
        info = self.text(1)
        self.keeps = info['parity'] or info['kind'] == 'file'
        self.tells = max([0] + [e['number'] for e in self.health()['events']])

    def text(self, what):
        """As umbractl info, stat, health --json; without a process for each."""
        out = b''
        while True:
            page = bytearray(struct.pack('4I8192s', what, len(out), 0, 0, b''))
            fcntl.ioctl(self.fd, TEXT, page)
            n, = struct.unpack_from('I', page, 8)
            out += page[16:16 + n]
            if n < 8192:
                return json.loads(out)

    def ioctl(self, lba, bit=-1, settle=0):
        fcntl.ioctl(self.fd, POISON, struct.pack('QiI', lba, bit, settle))

    def health(self):
        try:
            self.ioctl(0, settle=1)
        except OSError as e:
            if e.errno == errno.ENOTTY:
                print('SKIP: the daemon was built without -Dpoison=true')
                sys.exit(77)
            raise
        return self.text(2)

    def scrub(self):
        """How many bad blocks it found."""
        now = bytearray(struct.pack('2I3Q2I', 1, 0, 0, 0, 0, 0, 0))
        fcntl.ioctl(self.fd, SCRUB, now)
        limit = time.monotonic() + 60
        while now[4] == 1:
            if time.monotonic() > limit:
                fail('the scrub does not end')
            time.sleep(.001)
            now = bytearray(struct.pack('2I3Q2I', 0, 0, 0, 0, 0, 0, 0))
            fcntl.ioctl(self.fd, SCRUB, now)
        if now[4] != 3:
            fail('scrub', now[4])
        return struct.unpack_from('Q', now, 24)[0]

    def owners(self):
        """LBA -> the pages that it is."""
        found = collections.defaultdict(set)
        for name in PAGES:
            fd = os.open(self.mnt + '/' + name, os.O_RDONLY)
            at, last = 0, False
            while not last:
                req = bytearray(struct.pack('2Q2I', at, 2 ** 40 - at, 0, 0) + bytes(256 * 32))
                fcntl.ioctl(fd, MAP, req)
                count, = struct.unpack_from('I', req, 16)
                for k in range(count):
                    off, lba, size, _, flags = struct.unpack_from('3Q2I', req, 24 + 32 * k)
                    for i in range(size // B if lba else 0):
                        found[lba + i].add((name, off // B + i))
                    at, last = off + size, bool(flags & 8)
                last = last or not count
            os.close(fd)
        return found

    def read(self, name, page, flags=os.O_DIRECT):
        """None: as it was made. Else the error."""
        fd = os.open(self.mnt + '/' + name, os.O_RDONLY | flags)
        try:
            buf = mmap.mmap(-1, B)
            if os.preadv(fd, [buf], page * B) != B:
                fail(name, page, 'is short')
            if buf[:] != content(name, page):
                fail(name, page, 'has wrong bytes', buf[:40])
        except OSError as e:
            return e.errno
        finally:
            os.close(fd)

    def write(self, name, page):
        fd = os.open(self.mnt + '/' + name, os.O_WRONLY | os.O_DIRECT)
        buf = mmap.mmap(-1, B)
        buf[:] = content(name, page)
        if os.pwrite(fd, buf, page * B) != B:
            fail('write')
        os.close(fd)


# ---- at work meanwhile ----------------------------------------------------------------------------

def reader(m, seed, stop):
    rng = random.Random(seed)
    while not stop.value:
        name = rng.choice(list(PAGES))
        err = m.read(name, rng.randrange(PAGES[name]), rng.choice([0, os.O_DIRECT]))
        if err not in (None, errno.EIO):
            fail('reader:', os.strerror(err))
        if rng.random() < .1 and len(os.listdir(m.mnt + '/dir')) < NAMES:
            fail('reader: names are missing')
        time.sleep(.003)


def writer(m, seed, stop):
    rng = random.Random(seed)
    n = 0
    while not stop.value:
        name = '%s/w%d' % (m.mnt, n % 5)
        with open(name, 'wb') as f:
            f.write(b'w' * rng.randrange(1, 30000))
        os.rename(name, m.mnt + '/renamed')
        n += 1
        time.sleep(.005)


def mapper(m, seed, page):
    rng = random.Random(seed)
    fd = os.open(m.mnt + '/own', os.O_RDONLY)
    mem = mmap.mmap(fd, PAGES['own'] * B, mmap.MAP_SHARED, mmap.PROT_READ)
    while page.value != -2:
        page.value = rng.randrange(PAGES['own'])
        if mem[page.value * B:(page.value + 1) * B] != content('own', page.value):
            fail('mapping: wrong bytes')
        mem.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        time.sleep(.003)


class Work:
    def __init__(self, m, seed):
        self.m, self.seed = m, seed
        self.killed = 0
        self.stop = multiprocessing.Value('i', 0)
        self.page = multiprocessing.Value('i', -1)
        self.others = [multiprocessing.Process(target=f, args=(m, seed, self.stop)) for f in (reader, writer)]
        for p in self.others:
            p.start()
        self.start_mapper()

    def start_mapper(self):
        self.mapper = multiprocessing.Process(target=mapper, args=(self.m, self.seed, self.page))
        self.mapper.start()

    def check(self, lost):
        """Nobody has ended but by touching a page that was lost at some time."""
        for p in self.others:
            if p.exitcode is not None:
                fail('a process ended with', p.exitcode)
        if self.mapper.exitcode is None:
            return
        if self.mapper.exitcode != -signal.SIGBUS:
            fail('the mapping ended with', self.mapper.exitcode)
        if ('own', self.page.value) not in lost:
            fail('the mapping was killed at page', self.page.value)
        self.killed += 1
        self.start_mapper()

    def end(self, lost):
        self.check(lost)
        self.stop.value = 1
        last = self.page.value
        for p in self.others:
            p.join()
            if p.exitcode:
                fail('a process ended with', p.exitcode)
        self.mapper.terminate()
        self.mapper.join()


# ---- the test ---------------------------------------------------------------------------------------

def look(m, lost):
    for name, pages in PAGES.items():
        fd = os.open(m.mnt + '/' + name, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        for page in range(pages):
            err = m.read(name, page, 0)
            if (name, page) in lost:
                if err not in (None, errno.EIO): # the kernel may still have the page
                    fail(name, page, os.strerror(err))
            elif err:
                fail(name, page, os.strerror(err))
    if len([n for n in os.listdir(m.mnt + '/dir') if n.startswith('a-name')]) != NAMES:
        fail('names are missing')
    for i in range(NAMES):
        os.stat('%s/dir/a-name-that-takes-some-room-%d' % (m.mnt, i))
    if os.getxattr(m.mnt + '/plain', 'user.big') != b'v' * 3000:
        fail('attribute')


def try_one(m, lba, ever_lost):
    """What it was, and what was done about it."""
    pages = m.owners().get(lba, set())
    scrub = random.random() < .5 or not pages
    m.ioctl(lba)
    if not m.keeps:
        ever_lost |= pages
    for name, page in pages:
        if m.read(name, page) != (None if m.keeps else errno.EIO):
            fail('block', lba, name, page, 'is readable' if not m.keeps else 'is lost')
    if scrub:
        m.scrub()
    events = [e for e in m.health()['events'] if e['number'] > m.tells]
    if events:
        m.tells = events[-1]['number']
    events = [e for e in events if e['lba'] == lba]
    if len(events) > 1:
        fail('block', lba, 'is told of more than once:', events)
    if not events:
        if pages:
            fail('block', lba, pages, 'without an event')
        return 'unused', 'not noticed'
    kind, done = events[0]['kind'], events[0]['done']
    if pages:
        files = {(f['path'][1:], f['off'] // B) for f in events[0]['files']}
        if kind != 'file data' or done != ('repaired' if m.keeps else 'lost') or files != pages:
            fail('block', lba, 'is', pages, 'and not', events[0])
        for name, page in pages:
            m.write(name, page)
            if m.read(name, page):
                fail('block', lba, name, page, 'cannot be written')
    elif done not in ('repaired', 'rewritten', 'one-copy', 'retired') and kind != 'file data':
        fail('block', lba, events[0])
    return kind, done


def flip(m, rng):
    """All blocks but file data, some at a time: what was not metadata is not noticed."""
    data = set(m.owners())
    total = 0
    for turn in range(6):
        lbas = [lba for lba in rng.sample(range(6144), 200) if lba not in data]
        # Not both copies of one, at the same time: the first half of the pool has the first ones.
        lbas = [lba for lba in lbas if (lba < 3072) == (turn % 2 == 0) and not 512 <= lba < 1100 and lba < 5100]
        for lba in lbas:
            m.ioctl(lba, rng.randrange(B * 8))
        found = m.scrub()
        m.ioctl(0, settle=1)
        if m.scrub():
            fail('bad copies are left')
        total += found
    rewritten = [e for e in m.health()['events'] if e['cause'] == 'checksum']
    if not rewritten or any(e['done'] != 'rewritten' for e in rewritten):
        fail('flips', rewritten)
    print('  copies with flipped bits found and rewritten: %d' % total)
    look(m, set())


def burst(m, rng):
    # The lower half has the first copies: of no node both fail, so that all owners can be found.
    for lba in rng.sample(range(3072), 300):
        m.ioctl(lba)
    m.scrub()


def main():
    if sys.argv[1] == 'make':
        return make(sys.argv[2])
    m = Mount(sys.argv[2], sys.argv[3])
    if sys.argv[1] == 'look':
        lost = set()
        for e in m.health()['events']:
            if e['done'] == 'lost':
                lost |= {(f['path'][1:], f['off'] // B) for f in e['files']}
        return look(m, lost)
    if sys.argv[1] in ('flip', 'burst'):
        return globals()[sys.argv[1]](m, random.Random(int(sys.argv[4])))
    outcomes, lost = collections.Counter(), set()
    work = Work(m, int(sys.argv[4]))
    random.seed(int(sys.argv[4]))
    try:
        for lba in map(int, sys.argv[5:]):
            try:
                outcomes[try_one(m, lba, lost)] += 1
            except OSError as e:
                if e.errno == errno.EOPNOTSUPP:
                    print('SKIP: no UFFDIO_POISON here')
                    sys.exit(77)
                raise
            work.check(lost)
        work.end(lost)
    finally:
        work.stop.value = 1
        for p in work.others + [work.mapper]:
            p.kill()
    look(m, set())
    outcomes['(mapping)', 'killed by a lost page'] = work.killed
    for (kind, done), n in sorted(outcomes.items()):
        print('%s\t%s\t%d' % (kind, done, n))


main()
