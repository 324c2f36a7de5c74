# ruff: noqa: E501
"""What language models say around, about or instead of a rewrite: phrases per language, as data.

A language is added by a line in the tables. Each pattern is matched without regard to case; a phrase that the source
text has too is never held against a reply (see `ratekit.rewriting.judge`).
"""

from __future__ import annotations

import functools
import re

_APOLOGY = r"(?:(?:i['’]m|i am)(?: very| so| truly)? sorry|sorry|i apologi[sz]e|my apologies|unfortunately|thank you for [^.,\n]{0,40}|i (?:understand|appreciate)\b[^.,\n]{0,60}|as an ai\b[^,.\n]{0,40})"

# At the start of a reply: an apology or none, then that the model does not do what it was asked to. A review's
# "I can't recommend" is none.
REFUSALS: dict[str, tuple[str, ...]] = {
    "en": (
        rf"(?:{_APOLOGY}\W{{1,3}})*(?:but\W{{1,2}})?"
        r"i(?:['’]m| am)? (?:can(?:['’]t|not| not)|unable to|not able to|not comfortable|won['’]t be able to|must decline"
        r"|have to decline|will not|won['’]t)(?: to)?(?: directly)?"
        r" (?:help(?! but\b)|assist|fulfil|fulfill|comply|do (?:that|this)|rewrite|rewriting|adjust|modify|generate"
        r"|produce|engage|continue with|provide (?:that|this|a|an)|create (?:that|this|a|an|content)"
        r"|write (?:that|this|such)|with (?:that|this))\b",
        r"as an ai (?:language model|assistant)\b",
        rf"(?:{_APOLOGY}\W{{1,3}})*(?:but\W{{1,2}})?(?:(?:that|this)(?:(?:['’]s| is) not| isn['’]t) something (?:that )?i\b[^.\n]{{0,30}}"
        r"\b(?:help|assist|able|do|comfortable|provide|rewrite)"
        r"|i(?:['’]d| would) (?:rather|prefer) not (?:to )?(?:rewrite|adjust|modify|write|help)"
        r"|i(?:['’]m| am) not going to (?:help|assist|rewrite|adjust|write|provide)"
        r"|i (?:do not|don['’]t) feel comfortable (?:rewriting|adjusting|making|writing|producing|generating|providing|with)"
        r"|i (?:cannot|can['’]t|will not|won['’]t) (?:and will not|provide assistance|produce|do that)\b"
        r"|my (?:guidelines|policies|programming|training) (?:do|does|prevent|prohibit|forbid)"
        r"|(?:this|the|your) (?:content|request|text|message) (?:violates|goes against|is against|may violate)\b[^.\n]{0,60}"
        r"(?:polic|guideline|terms))",
    ),
    "zh": (
        r"(?:(?:很|非常|十分|实在|真的)?(?:抱歉|对不起|對不起|不好意思|遗憾|遺憾)[，,。！!：:\s]*)?(?:但是?|不过)?"
        r"(?:作为(?:一个|一名)?[^，。\n]{0,16}[，,]?)?(?:我|本人)?[^，。！\n]{0,12}"
        r"(?:帮不了|幫不了|(?:无法|無法|不能|没办法|沒辦法|没法|沒法|不便|不可以|不会)[^，。！\n]{0,12}"
        r"(?:协助|協助|帮助|幫助|帮您|帮你|满足|滿足|完成|提供|改写|改寫|重写|重寫|修改|调整|調整|处理|處理|执行|執行|回答|生成|继续|繼續|讨论|討論|参与|按照|这样做|这么做))",
    ),
    "ja": (
        r"(?:大変|誠に)?(?:申し訳(?:ありません|ございません|ない)|すみません|ごめんなさい|恐れ入ります)[^\n]{0,80}"
        r"(?:(?<!すすめ)(?<!勧め)(?<!薦め)できません|できかねます|いたしかねます|お手伝いでき|お応えでき|対応でき|お答えでき|応じられ)",
        r"[^\n。、]{0,12}(?:お手伝い|お応え|お答え|対応|お受け|協力)[^\n。]{0,8}(?:できません|できかねます|いたしかねます)",
    ),
    "ko": (
        r"(?:(?:정말 )?죄송(?:합니다|하지만|해요)|미안(?:합니다|하지만))[^\n]{0,80}(?:없습니다|없어요|어렵습니다|할 수 없)",
    ),
    "es": (
        r"(?:(?:lo siento(?: mucho)?|lo lamento|disculpa|perdón|perdona|lamentablemente)\W{1,3})?(?:pero )?no (?:puedo|podré|me es posible|soy capaz de)"
        r" (?:ayudar|asistir|cumplir|hacer (?:eso|esto)|reescribir|modificar|ajustar|generar|proporcionar|continuar|atender|con es[oa])",
    ),
    "fr": (
        r"(?:(?:(?:je suis )?(?:vraiment )?désolée?|je m['’]excuse|je regrette|malheureusement)\W{1,3})?(?:mais )?je ne (?:peux|puis|suis) pas"
        r" (?:en mesure (?:de |d['’]))?(?:vous )?(?:aider|répondre|satisfaire|réécrire|reformuler|modifier|générer|fournir|faire (?:cela|ça)|donner suite)",
    ),
    "de": (
        r"(?:(?:es tut mir (?:sehr )?leid|tut mir leid|leider|entschuldigung)\W{1,3})?(?:aber |doch )?(?:(?:dabei|damit|hierbei|das|dies) )?(?:ich )?(?:kann|darf|werde)(?: ich)?"
        r"[^.\n]{0,50}\bnicht\b[^.\n]{0,40}(?:helfen|erfüllen|umschreiben|nachkommen|anpassen|generieren|bearbeiten|beantworten|weiterhelfen"
        r"|machen|tun|ausführen|umsetzen)\b",
        r"(?:(?:es )?tut mir (?:sehr )?leid\W{1,3}(?:aber )?)?ich bin (?:leider )?nicht in der lage\b(?![^.\n]{0,60}empfehl)",
    ),
    "it": (
        r"(?:(?:mi dispiace|spiacente|purtroppo)\W{1,3})?(?:ma )?non (?:posso|sono in grado di|mi è possibile)"
        r" (?:aiutar|assister|soddisfare|riscrivere|modificare|generare|fornire|fare questo|continuare)",
    ),
    "pt": (
        r"(?:(?:sinto muito|desculpe|lamento|infelizmente)\W{1,3})?(?:mas )?(?:eu )?não (?:posso|consigo|sou capaz de)"
        r" (?:ajudar|auxiliar|atender|cumprir|fazer isso|reescrever|modificar|gerar|fornecer|continuar)",
    ),
    "nl": (
        r"(?:(?:het spijt me|sorry|helaas)\W{1,3})?(?:maar )?(?:ik )?kan(?: ik)?[^.\n]{0,40}\bniet\b[^.\n]{0,30}"
        r"(?:helpen|voldoen|herschrijven|aanpassen|genereren|uitvoeren)",
    ),
    "ru": (
        r"(?:(?:извините|простите|к сожалению|мне (?:очень )?жаль)\W{1,3})?(?:но )?(?:я )?не (?:могу|смогу|в состоянии)"
        r" (?:вам )?(?:помочь|выполнить|ответить|переписать|изменить|предоставить|создать|сделать это|продолжить)",
    ),
    "pl": (
        r"(?:(?:przykro mi|przepraszam|niestety)\W{1,3})?(?:ale )?nie (?:mogę|jestem w stanie)\b[^.\n]{0,30}"
        r"(?:pomóc|spełnić|przepisać|zmienić|wykonać)",
    ),
    "sv": (  # and Danish and Norwegian
        r"(?:(?:tyvärr|beklagar|förlåt|jag är ledsen|desværre|dessverre|beklager)\W{1,3})?(?:men )?(?:jag |jeg )?kan"
        r"(?: jag| jeg)?(?: tyvärr| desværre| dessverre)? (?:inte|ikke) (?:hjälpa|hjælpe|hjelpe|skriva om|omskrive|uppfylla)",
    ),
    "tr": (
        r"(?:üzgünüm|maalesef|özür dilerim)\W{1,3}[^.\n]{0,60}(?:yardımcı olamam|olamıyorum|yapamam|getiremem|yazamam)",
    ),
    "vi": (
        r"(?:(?:rất )?(?:xin lỗi|tiếc)[^\n]{0,20}\W{1,3})?(?:nhưng )?tôi không thể (?:giúp|hỗ trợ|thực hiện|viết lại|đáp ứng)",
    ),
    "id": (r"(?:mohon )?maaf\W{1,3}[^.\n]{0,40}tidak (?:dapat|bisa) (?:membantu|memenuhi|menulis|melanjutkan)",),
    "uk": (
        r"(?:(?:вибачте|на жаль|мені (?:дуже )?шкода)\W{1,3})?(?:але )?(?:я )?не (?:можу|зможу) (?:вам )?"
        r"(?:допомогти|виконати|переписати|змінити|надати)",
    ),
    "ar": (
        r"(?:عذرا|عذرًا|آسف|أعتذر|للأسف)[^\n]{0,60}(?:لا أستطيع|لا يمكنني|لن أتمكن|غير قادر)",
        r"(?:لا أستطيع|لا يمكنني) (?:مساعد|المساعدة|تلبية|إعادة|تعديل|تقديم)",
    ),
    "hi": (r"(?:क्षमा करें|माफ़ करें|माफ कीजिए|मुझे खेद है)[^\n]{0,80}(?:नहीं कर सक|असमर्थ|मदद नहीं)",),
}  # fmt: skip

GLAD = r"(?:sure|certainly|of course|absolutely|okay|ok|got it|no problem|alright)"

# What an announcement of a rewritten text is made of: words for rewriting and for versions, one of which it has ...
REWRITING = re.compile(
    r"(?:re-?)?(?:writ(?:e|ing|ten)|wrote|phras\w*|word(?:ed|ing)|work(?:ed|ing)|format\w*|cast|draft\w*)|paraphras\w*"
    r"|(?:revis|edit|adjust|modif|adapt|alter|amend|improv|expand|extend|elaborat|enhanc|polish|shorten|lengthen|condens"
    r"|simplif|correct|updat|transform|convert|tweak|refin|tone[sd]?\b|toning)\w*|versions?|renditions?|variations?|variants?"
    r"|alternatives?|takes?|spins?|attempts?|texts?|(?:longer|shorter|simpler|better|clearer|plainer|warmer|friendlier"
    r"|politer|briefer|ruder|harsher|safer)"
)
POINTING = re.compile(r"here|below|following|follows|this")
# ... and the other words that it may have; what comes after "more" or "less" counts as one of them.
OF_AN_ANNOUNCEMENT = frozenset(
    re.findall(
        r"\w+",
        "absolutely alright certainly course definitely gladly glad happy happily help hello okay please sure thank thanks"
        " sharing providing question great good problem welcome want wanted wish asked request requested required needed"
        " instructions instruction present presenting find response reply review passage paragraph message answer output"
        " result sentence comment piece content post story line original given provided above full complete final new"
        " different possible suggested slightly somewhat little something style tone sound sounds sounding voice form"
        " detail details detailed length sentiment attribute quality positive negative formal informal way ways option"
        " goes gone consider could might look looks read reads putting make makes making made turn turned keep keeping kept preserving while same"
        " meaning change changed changes per done work let got the any all ready try trying used using add added adding"
        " take taken give gives giving based according accordingly",
    )
)

# A line of its own that leads to the text, and ends in a colon: it is taken off.
LEADS: dict[str, tuple[str, ...]] = {
    "en": (
        rf"{GLAD}\b[^\n]{{0,120}}",
        r"here(?:['’]s| is| are| you go)\b[^\n]{0,80}(?:response|version|rewrit|text|review|answer|adjust|revis|modif|edit)[^\n]{0,80}",
    ),
    "zh": (r"(?:(?:好的|当然|當然|没问题|可以)[，,。!！\s]*)?(?:以下是|下面是|这是|這是|修改后|修改後|调整后|改写后)[^\n：:]{0,40}",),
    "ja": (r"(?:(?:はい|もちろん|承知しました|わかりました)[、。!！\s]*)?(?:以下|こちら)[はがに][^\n：:]{0,40}",),
    "ko": (r"(?:(?:네|물론입니다|알겠습니다)[,.!\s]*)?(?:다음은|아래는|여기)[^\n:]{0,40}",),
    "es": (r"¡?(?:(?:claro|por supuesto|seguro)[^\n]{0,20}\W+)?aquí (?:está|tienes|va)\b[^\n:]{0,80}",),
    "fr": (r"(?:(?:bien sûr|d['’]accord|certainement)[^\n]{0,20}\W+)?voici\b[^\n:]{0,80}",),
    "de": (r"(?:(?:gerne|natürlich|klar|sicher)[^\n]{0,20}\W+)?hier ist\b[^\n:]{0,80}",),
    "it": (r"(?:(?:certo|certamente)[^\n]{0,20}\W+)?ecco\b[^\n:]{0,80}",),
    "pt": (r"(?:(?:claro|com certeza)[^\n]{0,20}\W+)?aqui (?:está|vai)\b[^\n:]{0,80}",),
    "ru": (r"(?:(?:конечно|хорошо)[^\n]{0,20}\W+)?вот\b[^\n:]{0,80}",),
    "uk": (r"(?:(?:звичайно|звісно)[^\n]{0,20}\W+)?ось\b[^\n:]{0,80}",),
    "nl": (r"(?:(?:natuurlijk|zeker|graag|prima)[^\n]{0,20}\W+)?hier (?:is|volgt|heb je)\b[^\n:]{0,80}",),
    "sv": (
        r"(?:(?:självklart|absolut|visst|javisst|selvfølgelig|selvfølgelig|selvfølgeligt)[^\n]{0,20}\W+)?"
        r"(?:här|her) (?:är|er|kommer)\b[^\n:]{0,80}",
    ),
    "pl": (r"(?:(?:jasne|oczywiście|pewnie)[^\n]{0,20}\W+)?oto\b[^\n:]{0,80}",),
    "tr": (r"(?:(?:tabii|elbette)[^\n]{0,20}\W+)?[iİ]şte\b[^\n:]{0,80}",),
    "vi": (r"(?:(?:chắc chắn|tất nhiên|được)[^\n]{0,20}\W+)?(?:dưới )?đây là\b[^\n:]{0,80}",),
    "id": (r"(?:(?:tentu|baik)[^\n]{0,20}\W+)?berikut\b[^\n:]{0,80}",),
    "ar": (r"(?:(?:بالطبع|بالتأكيد|حسنا|حسنًا)[^\n]{0,20}\W+)?(?:إليك|اليك|فيما يلي)[^\n:]{0,80}",),
    "hi": (r"(?:(?:ज़रूर|जरूर|बिल्कुल)[^\n]{0,20}\W+)?(?:यहाँ|यहां|यह रहा|यह रही|निम्नलिखित)[^\n:]{0,80}",),
}  # fmt: skip

# At the start: talk that runs on into the text, so that nobody can say where the text begins.
OPENINGS: tuple[str, ...] = (
    rf"{GLAD}[!,.] +(?:here\b|i(?:['’]ve| have) (?:adjusted|rewritten|revised|modified|made|changed)\b)",
    r"here(?:['’]s| is) (?:the|a|an|your|my) [^\n:.]{0,40}"
    r"(?:response|version|rewrite|adjust\w*|rewritten|revised|revision|review|text|answer)\b",
    r"i(?:['’]ve| have) (?:adjusted|rewritten|revised|modified|made)\b",
    r"(?:adjusted|rewritten|revised) (?:response|version|text)\b",
    r"(?:(?:ok|okay|alright|hmm|so|first|well)[,.!]? ){0,3}(?:the user (?:wants|is asking|asks|asked|has|complains|describes|expresses)|(?:i|we) (?:need|have|want) to"
    r" (?:rewrite|adjust|revise|rephrase|shorten|lengthen|expand|condense|make (?:the|this|it))|let me (?:rewrite|adjust|revise|rephrase|try|think|start))\b",
)  # fmt: skip

# At the end: a remark on the text, in a paragraph of its own.
CLOSINGS: tuple[str, ...] = (
    r"\n[ \t]*[(\[*_]{0,2}(?:note:|note that i|i(?:['’]ve| have) (?:adjusted|rewritten|kept|changed|made|tried|only)\b"
    r"|let me know if|changes made|this version|the (?:adjusted|rewritten|revised) )[^\n]*\s*$",
    r"\n[ \t]*[（(]?(?:注[：:]|备注[：:]|説明[：:]|说明[：:]|備考[：:]|希望这|참고[:：])[^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{0,2}(?:nota|notas|hinweis|anmerkung|remarque|note|opmerking|uwaga|not|примечание|примітка) ?:[^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{1,3}i (?:also |only |just |simply |slightly )?(?:made|kept|changed|adjusted|rewrote|rephrased|removed|added|replaced"
    r"|tried|shortened|expanded|used)\b[^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{0,3}(?:this (?:rewrite|rewriting|revision|adjustment|rephrasing|rewritten|revised|edited|updated)\b"
    r"|the above (?:response|text|version|review|answer|rewrite)\b|i hope (?:this|it|that)\b[^\n]{0,60}\b(?:expectations|requirements"
    r"|request|looking for|instructions|had in mind)|word count\b|(?:wait|hmm)[,.]+ (?:i|let me|maybe|the user)\b)[^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{0,3}in this (?:version|rewrite|rewriting|revision),? (?:i|the (?:tone|wording|text|sentiment))\b[^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{1,3}(?:adjusted|rewritten|revised|modified|edited|changed) (?:to|for|so|in)\b[^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{0,3}i (?:changed|replaced|swapped) [\"'“‘][^\n]{1,80}[\"'”’] (?:to|with|into|for|by) [\"'“‘][^\n]*\s*$",
    r"\n[ \t]*[(\[*_]{0,3}(?:sentiment|tone|label|style|register) ?:[*_]* *(?:(?:very|more|less) )?(?:positive|negative|neutral|formal"
    r"|informal|casual|polite|friendly)[.)\]*_]*\s*$",
    r"\n[ \t]*[*_]{0,2}alternatively(?:,[^\n:.]{0,40})?:[*_]*\s[^\n]*\s*$",
    r"\n[ \t]*[#(\[*_ ]{0,6}(?:(?:(?:key|main|summary of|list of|notable) )?changes(?: i)?(?: made)?|what (?:i |was |has )?changed)[*_ ]*:?[*_]*[ \t]*\n.*\Z",
    r"\n[ \t]*[#(\[*_ ]{0,6}(?:explanation|rationale|reasoning|justification)[*_ ]*:[^\n]*(?:\b(?:tone|wording|words|original|version"
    r"|phras\w+)\b|rewr[io]|adjust|rephras|chang)[^\n]*\s*$",
    r"(?:let me know|feel free|(?:would you like|do you want)(?: me to)?|need any|i hope|happy to|don['’]t hesitate)\b[^.!?\n]{0,120}\b"
    r"(?:adjustments?|adjust the (?:tone|style|wording|length)|revisions?|revis(?:e|ing) (?:it|this|that)|edits|modif\w+|tweak\w*|rephras\w+|rewrit\w+|reword\w*"
    r"|(?:other|further|more|any|additional|like) changes|make (?:it|this) (?:even )?(?:more|less|longer|shorter))\b[^.!?\n]{0,120}[.!?]*[)\]*_]*\s*$",
    r"\s[(\[](?:word count:? )?~?\d+ words[)\]]\s*$|\n[ \t]*[(\[*_—–-]{0,3} ?rewritten by\b[^\n]*\s*$",
)

_I_AM = r"\bi(?:['’]m| am) (?:just |always |not |so |very |more than |indeed |also |actually |simply |only )*"
_I_WILL = r"\bi(?:['’]ll| will| would| can|['’]d)(?: be (?:more than )?(?:happy|glad) to| make sure to)*"
_PIECE = r"(?:response|text|review|passage|answer|message|sentence|paragraph|content)"
_PROGRAM = r"(?:ai|chat ?bot|language model|virtual assistant)\b"

# Anywhere: what is said of the rewriting, or of oneself as a program; one of them is enough. The first of each pair is
# a word that the phrase holds: where a text lacks it, the pattern need not be tried.
TALK: tuple[tuple[str, str], ...] = (
    ("as a", rf"\bas an? (?:helpful |large )?{_PROGRAM}"),
    ("a", rf"{_I_AM}an? (?:[\w-]{{1,20}} )?{_PROGRAM}"),
    ("designed to", rf"{_I_AM}designed to (?:provide|assist|help)"),
    ("programmed to", rf"{_I_AM}programmed to\b"),
    ("please", rf"\bplease (?:provide|share|send|paste|give)(?: me)?(?: with)? (?:the|your|a) (?:[\w-]+ )?{_PIECE}\b"),
    ("you", rf"\byou (?:have(?:n['’]t| not)|did(?:n['’]t| not)) (?:include|provide|share|attach|give)\w* (?:the|any|a|your) (?:[\w-]+ )?{_PIECE}\b"),
    ("like me to", r"\byou(?:['’]d| would)? like me to (?:adjust|rephrase|rewrite|revise|modify|change|work on)\b|\bwould you like me to (?:rewrite|rephrase)"),
    ("send me the", rf"\bsend me the {_PIECE}\b"),
    ("no ", r"\bno (?:changes?|adjustments?|modifications?|edits?) (?:(?:is|are|was|were) )?(?:needed|necessary|required|made)\b"),
    ("is already", rf"\b(?:the|this|your) (?:[\w-]+ )?{_PIECE} is already\b"),
    ("response is too", r"\b(?:the|this|your|my) (?:(?:original|above|previous|adjusted|revised) )?response is too\b"),
    ("response has been", r"\b(?:the|this|your|my) (?:(?:original|above|previous|adjusted|revised) )?response has been"
     r" (?:corrected|adjusted|modified|rewritten|revised|edited|changed)"),
    ("respon", rf"{_I_WILL} (?:keep|adjust|rephrase|rewrite|revise|provide|modify|shorten) (?:my (?:responses?|replies)"
     r"|(?:this|the|your|a) (?:[\w-]+ ){0,2}response)\b"),
    ("as possible", rf"{_I_WILL} (?:keep|make) it as [\w ]{{1,20}} as possible\b"),
    ("with a positive tone", rf"{_I_WILL} (?:rephrase|rewrite|adjust) it with a\b"),
    ("with", r"\bwith (?:only )?the (?:requested|adjusted) (?:changes?|format|adjustments?)\b"),
    ("ing services", r"\b(?:editing|proofreading) services\b"),
    ("here", r"\bhere(?:['’]s| is) (?:the|a|an|your|my) (?:(?:[\w-]+ ){0,3}(?:response|rewrite|adjustment)"
     r"|(?:adjusted|revised|rewritten|modified|longer|shorter|(?:more|less) [\w-]+) version)\b[^\n:]{0,60}:\s*(?:\n|$)"),
    ("to make", rf"\bto make (?:this|the|your) {_PIECE} (?:more|less|longer|shorter|sound)\b[^.\n]{{0,40}}\byou\b"),
    ("you c", rf"\byou (?:can|could) (?:make|rephrase|rewrite|revise|adjust|reword) (?:this|the|your) {_PIECE}\b"),
    ("作为", r"作为(?:一个|一名)?(?:人工智能|AI|语言模型)"),
)  # fmt: skip

# At the start: what an assistant says to its user. With a second one anywhere, or where the text is not the source's,
# it is no part of a rewrite.
COURTESIES: tuple[tuple[str, str], ...] = (
    ("sorry", rf"{_I_AM}sorry for (?:the|any|my) (?:\w+ )?(?:confusion|misunderstanding|error|mistake|inconvenience)\b"),
    ("here to", rf"{_I_AM}here to (?:help|assist|provide|support|offer|tell|collaborate)\b"),
    ("glad", rf"{_I_AM}glad (?:to (?:hear|see|help|assist)|you\b|that you)"),
    ("happy", rf"{_I_AM}happy (?:to (?:hear|see|help|assist)|you\b|that you)"),
    ("not sure", r"\bi(?:['’]m| am) not sure what to say\b"),
    ("capable of", rf"{_I_AM}capable of\b"),
    ("equipped to", rf"{_I_AM}equipped to\b"),
    ("unable to", rf"{_I_AM}unable to (?:assist|help|provide)\b"),
    ("if you", r"\bif you (?:need|have) (?:any |more |further )*(?:help|assistance|questions?|problems?)\b"),
    ("how ", r"\bhow (?:can|may) i (?:help|assist)\b"),
    ("with any", r"\bi can (?:help|assist) (?:you )?with any\b"),
    ("let me know", r"\b(?:please )?let me know if\b"),
    ("feel free", r"\b(?:please )?feel free to\b"),
    ("thank", r"\b(?:thank you|thanks) for (?:sharing|your (?:feedback|question|message|review|thoughts|input|request))\b"),
    ("sounds like", r"\b(?:it|that) sounds like\b"),
    ("agree with you", r"\bi (?:\w+ )?agree with you\b"),
    ("text", r"\b(?:the|this) (?:provided |given |above )?text (?:is|describes|discusses|provides|explains|appears|contains)\b"),
)  # fmt: skip

# Words of four letters or more that two unrelated English texts share.
OF_NO_CONTENT = frozenset(
    re.findall(
        r"\w+",
        "about also because been before being could does doing each even from have here into just like made make many more"
        " most much must only other over should some such than that their them then there these they this those very were"
        " what when where which while will with would your",
    )
)


def pattern(
    phrases: dict[str, tuple[str, ...]] | tuple[str, ...], after: str = "", flags: re.RegexFlag = re.NOFLAG
) -> re.Pattern[str]:
    """One pattern for all phrases of all languages."""
    rows = phrases.values() if isinstance(phrases, dict) else [phrases]
    return re.compile("(?:" + "|".join(p for row in rows for p in row) + ")" + after, re.IGNORECASE | flags)


@functools.cache
def _compiled(phrases: tuple[tuple[str, str], ...]) -> list[tuple[str, re.Pattern[str]]]:
    return [(word, re.compile(p.lower())) for word, p in phrases]


def said(phrases: tuple[tuple[str, str], ...], text: str, at_start: bool = False) -> set[str]:
    """Which of the phrases a text says, by their first words."""
    lower = text.lower()
    return {
        word
        for word, found in _compiled(phrases)
        if word in lower and (found.match(lower) if at_start else found.search(lower))
    }
