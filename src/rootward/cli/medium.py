"""The keys of a ceremony where they really are: in folders on media and in tokens, opened by passphrases, PINs and
custodians.

A new key's folder and its share files get their names when everything else is done (`making.py`, `keep`). So a ceremony
that was cut off left no key and no share that counts, and what it left is thrown away by the next one, after asking.
More than 400 lines: a key in a folder and one in a token are made, opened, changed and given up side by side.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rootward.ca.ceremony import Care, Keys
from rootward.cli import screen
from rootward.cli.failure import Failure
from rootward.cli.making import give_name, hand_out, leave, making, refuse_finished, shares_of
from rootward.cli.talk import Talk, again, told
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.script import (
    SHARES,
    BackUpKey,
    ChangeCustodians,
    CheckShares,
    DestroyKey,
    FileKey,
    KeyPlace,
    MakeKey,
    Script,
    TokenKey,
)
from rootward.core.shares import Share
from rootward.keys import BACKENDS, Backend, Kek, Key, KeySettings, envelope, keepsake, kek_from_passphrase, quorum
from rootward.keys.disk import NEW, read, write_new
from rootward.keys.file import key_files
from rootward.keys.kek import SHORTEST
from rootward.keys.participant_token import pin_works, set_pin
from rootward.keys.share_file import LARGEST

_PIN = "pin"  # the sealed PIN's file in its folder
Held = tuple[bytes, str]  # a share's file, and the passphrase that opens it


@dataclass
class Medium(Keys):
    """`base` is where the script lies, `shares` the folder for new share files, `out` the result's. What was done so
    far, by the entry of `keys`: `sets` are the ids of new shares, `new` the folders that new keys will have, `dealt`
    the new keys that shares were made for, `pins_before` what the tokens had that got a PIN which nobody knows.
    """

    script: Script
    base: Path
    shares: Path
    out: Path
    talk: Talk
    present: tuple[str, ...]
    opened: dict[str, Backend] = field(default_factory=dict)
    keks: dict[str, Kek] = field(default_factory=dict)
    held: dict[str, list[Share]] = field(default_factory=dict)
    new: dict[str, Path] = field(default_factory=dict)
    made: dict[str, Key] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    dealt: set[str] = field(default_factory=set)
    pins: dict[str, bytes] = field(default_factory=dict)
    pins_before: dict[str, bytes] = field(default_factory=dict)
    lasting: list[str] = field(default_factory=list)
    changed: dict[str, KeyPlace] = field(default_factory=dict)

    def make(self, name: str, algorithm: KeyAlgorithm) -> Key:
        where = self._where(name)
        if isinstance(where, FileKey):
            folder = self._new_folder(name, where)
            kek = self._new_kek(name, where)
            self.opened[name] = BACKENDS["file"](KeySettings(folder=folder / "keys", kek=kek))
        else:
            self._new_token_pin(name, where)
            self.opened[name] = self._token(name, where)
            self._clear_token(name)
        key = self.opened[name].generate(name, algorithm)
        self.made[name] = key
        return key

    def open(self, name: str, public: PublicKey) -> Key:
        if name not in self.opened:
            where = self._where(name)
            if isinstance(where, FileKey):
                folder = self._folder(where)
                kek = self._kek(name, where)
                self.opened[name] = BACKENDS["file"](KeySettings(folder=folder / "keys", kek=kek))
            else:
                self.opened[name] = self._token(name, where)
        return self.opened[name].load(name, public.id)

    def care(self, step: Care, public: PublicKey | None) -> tuple[str, ...]:
        match step:
            case CheckShares():
                return self._check_shares(step)
            case ChangeCustodians():
                facts = self._change_custodians(step)
            case BackUpKey():
                facts = self._back_up(step, public)
            case DestroyKey():
                facts = self._destroy(step)
        if isinstance(step, BackUpKey) or not self._is_new(step.key):  # what becomes of a new key ends with it
            self.lasting += facts
        return facts

    def keep(self) -> None:
        """Give what was made its name. Called once, when all steps are done."""
        for final in self.new.values():
            give_name(final)
        hand_out(self.shares, self.dealt)
        self.new.clear()
        self.made.clear()
        self.pins_before.clear()

    def give_up(self) -> None:
        """Take away the keys that this ceremony made, because it ends without a result; say what cannot be undone."""
        if self.lasting:
            self.talk.say("The ceremony ends here, and what it did to keys stays done. Write down:")
            for fact in self.lasting:
                self.talk.say(f"  {screen.safe(fact)}")
        with ExitStack() as each:  # of every key all that can be undone is, whatever becomes of the others
            each.callback(leave, self.shares)
            for name in dict.fromkeys((*self.new, *self.made)):
                each.callback(self._take_away, name)

    def _take_away(self, name: str) -> None:
        where = self._where(name)
        if isinstance(where, TokenKey):
            self._undone(f'The new key "{name}" is in its token still', self._delete, name, where)
            if not self._undone(f'The token of "{name}" has its new PIN still', self._put_pin_back, name, where):
                self.talk.say(f"{screen.safe(making(self.new[name]))} stays: the PIN is sealed in it, for the shares")
                self.talk.say(f"in {screen.safe(making(self.shares))}.")
                return
        if name in self.new:
            shutil.rmtree(making(self.new[name]))
        for path in shares_of(making(self.shares), name) if name in self.dealt else ():
            path.unlink()

    def _undone(self, otherwise: str, undo: Callable[[str, TokenKey], None], name: str, where: TokenKey) -> bool:
        """Whether it could be undone; said if not."""
        try:
            undo(name, where)
        except Problem as problem:
            self.talk.say(f"{otherwise}:")
            told(self.talk, problem)
            return False
        return True

    def _delete(self, name: str, where: TokenKey) -> None:
        if name in self.made:
            if name not in self.opened:  # its custodians were changed after it was made
                self.opened[name] = self._token(name, where)
            self.opened[name].delete(name, self.made[name].public.id)

    def _put_pin_back(self, name: str, where: TokenKey) -> None:
        before = self.pins_before.get(name)
        if before is not None and (name in self.made or name in self.opened or not pin_works(where.uri, before)):
            set_pin(where.uri, self._pin(name, where), before)

    def _where(self, name: str) -> KeyPlace:
        """Where the script says, with the custodians that it has by now."""
        return self.changed.get(name) or self.script.keys[name]

    def _refuse_finished(self, where: KeyPlace) -> None:
        """What is left where a key is to be made may be the key of a result that only waits for its name."""
        refuse_finished(where, (self.base, self.out.parent, (self.base / (where.folder or SHARES)).parent))

    def _is_new(self, name: str) -> bool:
        """Whether the script makes the key: then what belongs to it counts with the result, and not before."""
        return any(isinstance(step, MakeKey) and step.key == name for step in self.script.steps)

    def _new_folder(self, name: str, where: KeyPlace) -> Path:
        """The folder to make a key in that is to be in `where`."""
        final = self.base / where.folder
        folder = making(final)
        if final.exists():
            raise Problem("RW-CEREMONY", f"There is a folder {final} already; a new key is made in a new one.")
        left = [folder] if folder.exists() else []
        left += [*shares_of(making(self.shares), name), *making(self.shares).glob(f"{NEW}*")]
        if left:
            self._refuse_finished(where)
            self.talk.say("This is left of a ceremony that was cut off:")
            for path in left:
                self.talk.say(f"  {screen.safe(path)}")
            self.talk.say(
                "No result of it lies beside the script or where the result of this one will be. Unless there is one "
                "elsewhere, nothing that counts was made with it; if there may be, end here with Ctrl-C."
            )
            if (folder / _PIN).exists():
                self.talk.say(
                    "The PIN of the token may be sealed in it. Have the security officer of the token set a new one "
                    "before you go on (pkcs11-tool --login --login-type so --init-pin)."
                )
            self.talk.expect('Type "remove" to remove it:', ["remove"])
            for path in left:
                if path == folder:
                    shutil.rmtree(path)
                else:
                    path.unlink()
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise Problem("RW-CEREMONY", f"{folder} cannot be made: {error.strerror}.") from error
        self.new[name] = final
        return folder

    def _folder(self, where: KeyPlace) -> Path:
        """The folder of a key that is there; of one that this ceremony makes, where it is until it is kept."""
        final = self.base / where.folder
        return making(final) if final in self.new.values() else final

    def _new_kek(self, name: str, where: KeyPlace) -> Kek:
        """What seals a new key: a new passphrase, or a new quorum."""
        if not where.custodians:
            passphrase = self._new_passphrase(f'Passphrase for the key "{name}"')
            return kek_from_passphrase(passphrase)
        made = self._new_quorum(name, where.custodians, where.threshold)
        self.keks[name] = made.kek
        return made.kek

    def _new_quorum(self, name: str, custodians: Sequence[str], threshold: int) -> quorum.Quorum:
        self.talk.say(
            f'{threshold} of {len(custodians)} custodians will open the key "{name}". Each chooses a passphrase now, '
            "alone at the keyboard; it opens that custodian's share and nothing else."
        )
        chosen = {person: self._new_passphrase(f"{person}, a passphrase for your share") for person in custodians}
        made = quorum.make_quorum(name, chosen, threshold)
        folder = self.shares
        if self._is_new(name):
            folder = making(folder)
            self.dealt.add(name)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.sets[name] = made.set
        for person, path in zip(custodians, quorum.write_shares(folder, made), strict=True):
            self.talk.say(f"  {screen.safe(person)}: {path.name}")
        return made

    def _new_passphrase(self, what: str) -> str:
        for _ in range(3):
            first = self.talk.secret(f"{what}, {SHORTEST} characters or more:")
            if len(first) < SHORTEST:
                self.talk.say("That is too short.")
            elif self.talk.secret("The same again:") == first:
                return first
            else:
                self.talk.say("The two are different.")
        raise Failure("No passphrase was chosen in three tries: the ceremony ends here.")

    def _kek(self, name: str, where: KeyPlace) -> Kek:
        """What opens a key that is there."""
        if name not in self.keks:
            if where.custodians:
                self.keks[name] = quorum.open_quorum(self._gather(name, where))
                quorum.finish_change(self._folder(where) / "keys", self.keks[name])
            else:
                self.keks[name] = self._passphrase(name, where)
        return self.keks[name]

    def _passphrase(self, name: str, where: KeyPlace) -> Kek:
        sealed = self._sealed(where)

        def ask() -> Kek:
            kek = kek_from_passphrase(self.talk.secret(f'Passphrase of the key "{name}":'))
            if not all(envelope.opens(data, kek=kek) for data in sealed):
                raise Problem("RW-KEK", "It does not open the key.")
            return kek

        return again(self.talk, ask)

    def _gather(self, name: str, where: KeyPlace) -> list[Share]:
        """Shares of custodians who are here, until there are enough of them."""
        if name not in self.held:
            here = [person for person in where.custodians if person in self.present]
            if len(here) < where.threshold:
                raise Problem(
                    "RW-CEREMONY",
                    f"{where.threshold} custodians are needed to open the key {name}; here: {len(here)}.",
                )
            self.held[name] = self._enough(here, where.threshold)
        return self.held[name]

    def _enough(self, here: Sequence[str], threshold: int) -> list[Share]:
        """As many shares of one set; all that were opened, where no set has so many. Who cannot open theirs, or has one
        of another set, is made up for by the next one who is here.
        """
        found: dict[str, list[Share]] = {}
        for left, person in zip(range(len(here) - 1, -1, -1), here, strict=True):
            try:
                share = self._share(person)[1]
            except Failure:
                if max((len(shares) for shares in found.values()), default=0) + left < threshold:
                    raise
                self.talk.say(f"It goes on without the share of {screen.safe(person)}.")
                continue
            found.setdefault(share.set, []).append(share)
            if len(found[share.set]) == threshold:
                return found[share.set]
        return [share for shares in found.values() for share in shares]

    def _share(self, person: str) -> tuple[Held, Share]:
        """The share of this custodian and of nobody else: its file with the passphrase, and what is in it."""

        def ask() -> tuple[Held, Share]:
            path = self.base / self.talk.ask(f"{person}, the file of your share:")
            if path.parent == self.shares and not path.exists():  # of a key that this ceremony makes
                path = making(self.shares) / path.name
            try:
                data = read(path, code="RW-SHARE", limit=LARGEST, forbidden=0, owners=None)
            except FileNotFoundError:
                raise Problem("RW-SHARE", f"There is no file {path}.") from None
            passphrase = self.talk.secret(f"{person}, the passphrase of your share:")
            share = quorum.open_share(data, passphrase)
            if share.custodian != person:
                raise Problem("RW-SHARE", f"That is the share of {shown(share.custodian)}.")
            return (data, passphrase), share

        return again(self.talk, ask)

    def _token(self, name: str, where: TokenKey) -> Backend:
        opener = BACKENDS.get("pkcs11")
        if opener is None:
            raise Problem("RW-CEREMONY", "Keys in tokens are not there in this version.")
        pin = self._pin(name, where)
        return opener(KeySettings(store=name, uri=where.uri, pin=lambda: pin))

    def _pin(self, name: str, where: TokenKey) -> bytes:
        if not where.custodians:
            if name not in self.pins:
                self.pins[name] = self.talk.secret(f'PIN of the token with the key "{name}":').encode()
            return self.pins[name]
        return quorum.read_pin(self._folder(where) / _PIN, self._kek(name, where), name=name)

    def _new_token_pin(self, name: str, where: TokenKey) -> None:
        """With custodians, the token gets a random PIN that nobody has seen, sealed for them."""
        if not where.custodians:
            return
        folder = self._new_folder(name, where)
        current = self._current_pin(name, where)  # first: nobody chooses a passphrase for a token that is not there
        kek = self._new_kek(name, where)
        write_new(folder / _PIN, quorum.seal_pin(current, kek, name=name), mode=0o600)

        def give(old: bytes, new: bytes) -> None:
            self.pins_before[name] = current  # whatever ends this, the token may have the new one
            try:
                set_pin(where.uri, old, new)
            except Problem:  # but for this: it has the old one still
                del self.pins_before[name]
                raise

        quorum.change_pin(
            folder / _PIN,
            name=name,
            old=kek,
            new=kek,
            set_pin=give,
            works=lambda pin: pin_works(where.uri, pin),
        )

    def _current_pin(self, name: str, where: TokenKey) -> bytes:
        def ask() -> bytes:
            pin = self.talk.secret(f'PIN that the token of "{name}" has now, for the last time:').encode()
            if not pin_works(where.uri, pin):
                raise Problem("RW-CEREMONY", "The token does not take it. After a few wrong ones, it takes none.")
            return pin

        return again(self.talk, ask)

    def _clear_token(self, name: str) -> None:
        """Keys of this name that are in the token already: a ceremony that was cut off left them, or they matter."""
        for label, public_id in self.opened[name].list():
            if label != name:
                continue
            self._refuse_finished(self._where(name))
            self.talk.say(f'The token holds a key "{name}" already, with the public key')
            self.talk.say(f"{public_id}.")
            self.talk.say(
                "If it is left of a ceremony that was cut off before its result was written, nothing that counts was "
                "made with it."
            )
            self.talk.expect('Type "remove" to delete it from the token, or end here with Ctrl-C:', ["remove"])
            self.opened[name].delete(label, public_id)

    def _check_shares(self, step: CheckShares) -> tuple[str, ...]:
        where = self._where(step.key)
        here = [person for person in where.custodians if person in self.present]
        sealed = self._sealed(where)
        found = quorum.check_shares([self._share(person)[0] for person in here], opens=sealed)
        facts = [f"the share of {person} is sound" for person in found.sound]
        facts += (
            [f"{len(where.custodians) - len(here)} custodians are not here"]
            if len(here) < len(where.custodians)
            else []
        )
        if found.findings or not found.opened:
            raise Problem("RW-SHARE", " ".join(found.findings) or "The shares do not open the key.")
        return (*facts, f"the quorum of the set {found.set} opens the key")

    def _sealed(self, where: KeyPlace) -> list[bytes]:
        """What the quorum opens: key files, or a sealed PIN."""
        folder = self._folder(where)
        if isinstance(where, TokenKey):
            return [read(folder / _PIN, code="RW-KEK", limit=4096)]
        found = [read(path, code="RW-KEY-FILE", limit=envelope.LARGEST) for path in key_files(folder / "keys")]
        if not found:
            raise Problem("RW-KEY-MISSING", f"There is no key in {where.folder}.")
        return found

    def _change_custodians(self, step: ChangeCustodians) -> tuple[str, ...]:
        where = self._where(step.key)
        old = self._kek(step.key, where)
        self._sealed(where)
        first = shares_of(making(self.shares), step.key) if self._is_new(step.key) else []
        made = self._new_quorum(step.key, step.custodians, step.threshold)
        folder = self._folder(where)
        if isinstance(where, TokenKey):
            uri = where.uri
            quorum.change_pin(
                folder / _PIN,
                name=step.key,
                old=old,
                new=made.kek,
                set_pin=lambda was, new: set_pin(uri, was, new),
                works=lambda pin: pin_works(uri, pin),
            )
            changed = ["the PIN, which is a new one"]
        else:
            changed = quorum.change_keys(folder / "keys", old=old, new=made.kek)
        for path in first:  # those that this very ceremony made for others
            path.unlink()
        self.opened.pop(step.key, None)
        self.keks[step.key] = made.kek
        self.held.pop(step.key, None)
        self.changed[step.key] = msgspec.structs.replace(where, custodians=step.custodians, threshold=step.threshold)
        self.talk.say()
        for text in screen.wrap(quorum.OLD_COPIES, 76):
            self.talk.say(text)
        return (
            f"sealed anew for the set {made.set}: {', '.join(changed)}",
            f"{step.threshold} of {', '.join(step.custodians)}",
            "said aloud: an old copy still opens with enough old shares",
        )

    def _back_up(self, step: BackUpKey, public: PublicKey | None) -> tuple[str, ...]:
        where = self._where(step.key)
        if isinstance(where, TokenKey):
            raise Problem("RW-CEREMONY", "A key in a token cannot be copied; the token's maker says how to clone it.")
        folder, copies = self._folder(where) / "keys", []
        target = self.base / step.to
        new = [one.resolve() for final in self.new.values() for one in (final, making(final))]
        if any(target.resolve().is_relative_to(one) for one in new):
            raise Problem("RW-CEREMONY", f"{target} is in the folder of a new key: a copy goes elsewhere.")
        kek = self._kek(step.key, where)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in key_files(folder):
            if public is not None and not path.stem.endswith(public.id[:16]):
                continue
            label, public_id = keepsake.back_up(path, target / path.name, kek=kek, under=kek)
            copies.append(f"{label} {public_id} copied to {path.name}, read again and opened")
        if not copies:
            raise Problem("RW-KEY-MISSING", f"There is no such key in {folder}.")
        return tuple(copies)

    def _destroy(self, step: DestroyKey) -> tuple[str, ...]:
        where = self._where(step.key)
        self.talk.expect(f'Type "destroy {step.key}" to go on; it cannot be undone:', [f"destroy {step.key}"])
        facts: list[str] = []
        if isinstance(where, TokenKey):
            backend = self.opened.get(step.key) or self._token(step.key, where)
            try:
                backend.delete(step.key, step.public)
                facts.append(f"the key {step.public} was deleted from the token")
            except Problem as problem:
                if problem.code != "RW-KEY-MISSING":
                    raise
        else:
            folder = self._folder(where) / "keys"
            copies, gone = _holding(folder, step.public), list[str]()
            for path in keepsake.files_of(folder, step.public):
                gone += keepsake.destroy(path, public_id=step.public)
            for path in copies:
                if os.path.lexists(path):
                    keepsake.remove(path)
                    gone.append(path.name)
            facts += [f"the file {name} with the key {step.public} was overwritten and removed" for name in gone]
        if not facts:
            self.talk.say(
                "There is no such key where the script says. A ceremony that was cut off may have destroyed it; then "
                "the transcript of this one says that it is gone."
            )
            self.talk.expect('Type "gone" if that is so:', ["gone"])
            facts.append(f"the key {step.public} was not there any more")
        return tuple(facts)


def _holding(folder: Path, public_id: str) -> list[Path]:
    """Whatever in `folder` says that it holds the key with that public id, by whichever name somebody gave it."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink():
            continue  # what it points to is another file
        with suppress(Problem):  # it is no key file
            data = read(path, code="RW-KEY-FILE", limit=envelope.LARGEST, forbidden=0, owners=None)
            if envelope.read_header(data).public_id == public_id:
                found.append(path)
    return found
