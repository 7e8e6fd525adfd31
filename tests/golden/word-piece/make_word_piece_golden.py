"""Golden encodings of models/roberta-minilm-l6's WordPiece tokenizer, by the tokenizers library (made with 0.23.3).

Use: make_word_piece_golden.py SHARED_FOLDER > golden.jsonl
"""
import json
import random
import sys
from tokenizers import Tokenizer
shared = sys.argv[1]
t = Tokenizer.from_file(f'{shared}/models/roberta-minilm-l6/tokenizer.json')
t.no_padding()
t.no_truncation()
texts=["","Hello, world!","The cat sits outside.","A feline is resting outdoors.","Héllo WÖRLD naïve café","ÅNGSTRÖM İstanbul ΣΊΣΥΦΟΣ ﬁ ﬂ","日本語のテキスト and 中文 mixed","한국어 텍스트","[CLS] literal [SEP] and [MASK]!","[MASK][MASK] x","unaffable supercalifragilisticexpialidocious","a"*100,"a"*101,"a"*99+"!","x"*300+" y","tabs\tand\nnewlines\r\nand\u00a0nbsp\u2003em","control\x00\x01\x7f\u200bchars\ufeff\ufffd end","\u0085\u2028\u2029","🙂 emoji 👩‍👩‍👧 zwj","price: $1,234.56 (50% off) #1 @home a_b-c/d\\e ^~`|<>=+","don't can't I'm we've they're","e\u0301 o\u0308 \u0301","12345 6.02e23 0xFF","हिन्दी पाठ","العربية نص","עברית","ไทย","Ⅻ ² ½ ™ ©","“quotes” ‘single’ — dash – … ¿qué?","\U00020000\U0002a700\U0002b820\U0002b920\uf900","    ","  lead and trail  ","##ing ##","[unk] [UNK]","\u1e9b\u0323","ß ẞ SS","Đ đ Ł ł Ø ø"]
rng=random.Random(3)
for f in ['banking77/test','sentence-polarity/test','clinc150/val']:
    rows=[json.loads(l)['text'] for l in open(f'{shared}/data/{f}.jsonl',encoding='utf8')]
    texts+=rng.sample(rows,12)
rows=[json.loads(l)['text'] for l in open(f'{shared}/data/oasst1-sample/train.jsonl',encoding='utf8')]
for r in rng.sample(rows,30): texts.append(r[:160])

for x in texts:
    e = t.encode(x,add_special_tokens=True)
    print(json.dumps({'text':x,'ids':e.ids,'decoded':t.decode(e.ids,skip_special_tokens=True)},ensure_ascii=False))
