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
POISON = 0x40105520 # UM_IOC_POISON
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

    def ask(self, *args):
        out = subprocess.run([self.umbractl, *args], stdout=subprocess.PIPE)
        if out.returncode:
            fail('umbractl', *args)
        return json.loads(out.stdout)

    def ioctl(self, lba, bit=-1, settle=0):
        fcntl.ioctl(self.fd, POISON, struct.pack('QiI', lba, bit, settle))

    def health(self):
        self.ioctl(0, settle=1)
        return self.ask('health', '--json', self.mnt)

    def scrub(self):
        done = self.ask('scrub', 'start', '--wait', '--json', self.mnt)
        if done['state'] != 'done':
            fail('scrub', done)
        return done['bad']

    def owners(self):
        """LBA -> the pages that it is."""
        found = collections.defaultdict(set)
        for name in PAGES:
            for e in self.ask('map', '--json', self.mnt + '/' + name)['extents']:
                for i in range(e['length'] // B if e['lba'] else 0):
                    found[e['lba'] + i].add((name, e['offset'] // B + i))
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
        time.sleep(.003)


class Work:
    def __init__(self, m, seed):
        self.m, self.seed = m, seed
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
    pages = m.owners().get(lba, set())
    before = m.health()
    scrub = random.random() < .5 or not pages
    seen = before['events'][-1]['number'] if before['events'] else 0
    m.ioctl(lba)
    ever_lost |= pages
    for name, page in pages:
        if m.read(name, page) != errno.EIO:
            fail('block', lba, name, page, 'can be read')
    if scrub:
        m.scrub()
    events = [e for e in m.health()['events'] if e['number'] > seen]
    for e in events:
        # The reader, the writer: blocks that failed in an earlier turn may be met only now.
        if e['lba'] != lba:
            continue
        files = {(f['path'][1:], f['off'] // B) for f in e['files']}
        if e['done'] == 'lost' and e['kind'] == 'file data' and pages and files != pages:
            fail('block', lba, 'is', pages, 'and not', files)
        if e['done'] == 'no-copy':
            fail('block', lba, 'has no copy')
    done = [e['done'] for e in events if e['lba'] == lba]
    if pages and done != ['lost']:
        fail('block', lba, pages, done)
    for name, page in pages:
        m.write(name, page)
        if m.read(name, page):
            fail('block', lba, name, page, 'cannot be written')
    return done[0] if done else 'not in use'


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
    try:
        m.ioctl(0, settle=1)
    except OSError as e:
        if e.errno == errno.ENOTTY:
            print('SKIP: the daemon was built without -Dpoison=true')
            sys.exit(77)
        raise
    if sys.argv[1] in ('flip', 'burst'):
        return globals()[sys.argv[1]](m, random.Random(int(sys.argv[4])))
    outcomes, lost = collections.Counter(), set()
    work = Work(m, int(sys.argv[4]))
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
    for what, n in sorted(outcomes.items()):
        print('  %-10s %d' % (what, n))


main()
